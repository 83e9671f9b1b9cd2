"""Sources behind a login that list all records by pages, and the changes since an instant."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode

from scrapy import Request, Spider
from scrapy.http import JsonRequest, Response

from catlog_scrapy.records import Batch, Cursor, Removed

PAGE_SIZE = 500
# Statuses of a page for an expired token, and of the login for a wrong password.
EXPIRED, REFUSED = 401, [401, 403]


class ChangeFeed(Spider):
    """Spider that reads all of `base_url`/`path`, or with a `cursor` the changes since then.

    POST `base_url`/login {user, password} -> {token}. Every page has {cursor, total, next}, and
    `items`, or `changes` [{op, id, data}] in the order of time. A subclass sets the `path`, and in
    `fields` the name of each record field in an entry.
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
        # The last state of each changed record, None for a deleted record.
        self._latest: dict[Any, Mapping[str, Any] | None] = {}

    async def start(self) -> AsyncIterator[Any]:
        """Request a login. Raises ValueError without user and password."""
        if not (self.user and self.password):
            raise ValueError(f"{self.name} cannot log in; set the arguments user and password.")
        url = f"{self.base_url}/{self.path}"
        if self.cursor:
            since = urlencode({"since": self.cursor, "per_page": PAGE_SIZE})
            yield self._login(f"{url}/changes?{since}", read=0)
        else:
            yield self._login(f"{url}?per_page={PAGE_SIZE}", read=0)

    def _login(self, url: str, **state: Any) -> Request:
        """Request a login, then *url*."""
        return JsonRequest(
            f"{self.base_url}/login",
            data={"user": self.user, "password": self.password},
            callback=self.logged_in,
            cb_kwargs={"url": url, **state},
            meta={"handle_httpstatus_list": REFUSED},
            dont_filter=True,
        )

    def logged_in(self, response: Response, url: str, **state: Any) -> Iterator[Request]:
        """Request the page with the new token. Raises ValueError for a refused login."""
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
        """Yield the items of a page that follows *read* entries of earlier pages.

        Raises ValueError for a response of another form, for pages that hold fewer or more entries
        than their total, and for a refused *new_token*.
        """
        if response.status == EXPIRED:
            if new_token:
                raise ValueError(f"{response.url} refuses a token that the source has just issued.")
            yield self._login(response.url, read=read)
            return
        array = "changes" if self.cursor else "items"
        page = _members(response, "cursor", "total", "next", array)
        entries = page[array]
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise ValueError(f"{response.url} has no array of {array}: the source has changed.")
        read += len(entries)
        self._read_until = self._read_until or page["cursor"]
        if self.cursor:
            self._note(response, entries)
        elif entries:
            yield Batch([self.item(entry) for entry in entries])
        if page["next"] and entries and read < page["total"]:
            yield self._page(response.urljoin(page["next"]), read=read)
            return
        # Otherwise a lost page would make the rest look complete, and pages in a circle would
        # never end.
        if page["next"] or read != page["total"]:
            raise ValueError(
                f"{response.url} ends after {read} of {page['total']} {array}, and its next page is"
                f" {page['next']!r}: the source has changed."
            )
        yield from self._changed()
        # The first page's cursor: changes made while the pages are read come with the next load.
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
                        f"{response.url} has a change that is not created, updated or deleted:"
                        f" {str(change)[:200]}; the source has changed."
                    )

    def _changed(self) -> Iterator[Any]:
        """Yield one item for each changed record, with its last state."""
        for key, entry in self._latest.items():
            yield Removed(key) if entry is None else self.item(entry)

    def item(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item of *entry*. Validation finds missing fields."""
        return {name: entry.get(member) for name, member in self.fields.items()}


def _members(response: Response, *names: str) -> Mapping[str, Any]:
    """Return the JSON object of *response*. Raises ValueError if one of *names* is missing."""
    found = json.loads(response.body)
    missing = [name for name in names if not isinstance(found, dict) or name not in found]
    if missing:
        raise ValueError(f"{response.url} has no {missing[0]!r}: the source has changed.")
    return dict(found)


def plain_number(text: Any) -> Any:
    """Replace the decimal comma of *text* by a point. Other values stay as they are.

    >>> plain_number("4,5")
    '4.5'
    """
    return text.replace(",", ".") if isinstance(text, str) else text
