"""Sources that list all records by pages and say what has changed since: behind a login."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode

from scrapy import Request, Spider
from scrapy.http import JsonRequest, Response

from catlog_scrapy.records import Batch, Cursor, Removed

PAGE_SIZE = 500
# What a page answers to a token that is too old, and a login to the wrong password.
EXPIRED, REFUSED = 401, [401, 403]


class ChangeFeed(Spider):
    """Reads `base_url`/`path` whole, or, with a `cursor`, what has changed since that instant.

    POST `base_url`/login {user, password} -> {token}. Every page says {cursor, total, next}, and
    holds `items`, or `changes` [{op, id, data}] in the order of time. A subclass names the `path`
    and, in `fields`, where an entry has what the record's fields hold.
    """

    path: ClassVar[str]
    fields: ClassVar[Mapping[str, str]]
    base_url: str = ""
    user: str = ""
    password: str = ""
    cursor: str = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._token = ""
        self._read_until = ""
        # The last word on each record that has changed; of a deleted one None.
        self._latest: dict[Any, Mapping[str, Any] | None] = {}

    async def start(self) -> AsyncIterator[Any]:
        """Raises ValueError without a user and a password."""
        if not (self.user and self.password):
            raise ValueError(f"{self.name} cannot log in: give it a user and a password.")
        url = f"{self.base_url}/{self.path}"
        if self.cursor:
            since = urlencode({"since": self.cursor, "per_page": PAGE_SIZE})
            yield self._login(f"{url}/changes?{since}", read=0)
        else:
            yield self._login(f"{url}?per_page={PAGE_SIZE}", read=0)

    def _login(self, url: str, **state: Any) -> Request:
        """Log in, and then ask for *url*."""
        return JsonRequest(
            f"{self.base_url}/login",
            data={"user": self.user, "password": self.password},
            callback=self.logged_in,
            cb_kwargs={"url": url, **state},
            meta={"handle_httpstatus_list": REFUSED},
            dont_filter=True,
        )

    def logged_in(self, response: Response, url: str, **state: Any) -> Iterator[Request]:
        """Raises ValueError where the source does not let us in."""
        if response.status in REFUSED:
            raise ValueError(f"{response.url} refuses this user and password; correct them.")
        self._token = str(_members(response, "token")["token"])
        yield self._page(url, new_token=True, **state)

    def _page(self, url: str, **state: Any) -> Request:
        return Request(
            url,
            headers={"Authorization": f"Bearer {self._token}"},
            cb_kwargs=state,
            meta={"handle_httpstatus_list": [EXPIRED]},
            dont_filter=True,
        )

    def parse(
        self, response: Response, read: int = 0, new_token: bool = False, **_: Any
    ) -> Iterator[Any]:
        """A page, after *read* entries on those before it.

        Raises ValueError where it is none, where the pages do not hold what they say, or where
        even a *new_token* is refused.
        """
        if response.status == EXPIRED:
            if new_token:
                raise ValueError(f"{response.url} refuses a token that it has just given.")
            yield self._login(response.url, read=read)
            return
        holds = "changes" if self.cursor else "items"
        page = _members(response, "cursor", "total", "next", holds)
        entries = page[holds]
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise ValueError(f"{response.url} has no array of {holds}: the source has changed.")
        read += len(entries)
        self._read_until = self._read_until or page["cursor"]
        if self.cursor:
            self._note(response, entries)
        elif entries:
            yield Batch([self.item(entry) for entry in entries])
        if page["next"] and entries and read < page["total"]:
            yield self._page(response.urljoin(page["next"]), read=read)
            return
        # Without this, pages that get lost would pass off what is left as the whole, and pages in
        # a circle would never end.
        if page["next"] or read != page["total"]:
            raise ValueError(
                f"{response.url} ends after {read} of {page['total']} {holds}, and its next page is"
                f" {page['next']!r}: the source has changed."
            )
        yield from self._changed()
        # What the first page said: what happens while we read is newer, and comes next time.
        yield Cursor(self._read_until)

    def _note(self, response: Response, changes: list[Any]) -> None:
        for change in changes:
            match change:
                case {"op": "created" | "updated", "id": key, "data": dict(entry)}:
                    self._latest[key] = entry
                case {"op": "deleted", "id": key}:
                    self._latest[key] = None
                case _:
                    raise ValueError(
                        f"{response.url} has a change that is no created, updated or deleted:"
                        f" {str(change)[:200]}; the source has changed."
                    )

    def _changed(self) -> Iterator[Any]:
        """One item for each record that has changed, however often it has."""
        for key, entry in self._latest.items():
            yield Removed(key) if entry is None else self.item(entry)

    def item(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The item of *entry*, unvalidated: what it lacks is for the check to find."""
        return {name: entry.get(where) for name, where in self.fields.items()}


def _members(response: Response, *names: str) -> Mapping[str, Any]:
    """The JSON object that *response* holds. Raises ValueError where it lacks one of *names*."""
    found = json.loads(response.body)
    lacking = [name for name in names if not isinstance(found, dict) or name not in found]
    if lacking:
        raise ValueError(f"{response.url} has no {lacking[0]!r}: the source has changed.")
    return dict(found)


def plain_number(text: Any) -> Any:
    """*text* with a decimal point in place of a comma; what is no text as it is.

    >>> plain_number("4,5")
    '4.5'
    """
    return text.replace(",", ".") if isinstance(text, str) else text
