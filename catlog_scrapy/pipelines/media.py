"""Before the check: images and files of a record are kept, and its fields get their links.

Scrapy's own media pipelines do it, with all their settings. What catlog adds: the links go to the
fields that the record type names, a failed request loses no link, and no server is waited for long.
"""

import asyncio
import mimetypes
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, ClassVar, NoReturn, Self
from urllib.parse import urlsplit
from uuid import uuid4

from itemadapter import ItemAdapter
from scrapy.crawler import Crawler
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadConnectionRefusedError,
    DownloadTimeoutError,
    IgnoreRequest,
    NotConfigured,
)
from scrapy.http import Request, Response
from scrapy.http.request import NO_CALLBACK
from scrapy.pipelines.files import FilesPipeline, FSFilesStore
from scrapy.pipelines.images import ImagesPipeline
from scrapy.pipelines.media import FileException
from scrapy.utils.defer import ensure_awaitable
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from catlog_scrapy.crawl.attempt import running_attempt
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.records import Batch, FilesOf, ImagesOf
from catlog_scrapy.redaction import redact

# After so many requests in a row that ended like this, a server is asked for no more.
MAX_SILENT_REQUESTS = 5
SILENT_ERRORS = (CannotResolveHostError, DownloadConnectionRefusedError, DownloadTimeoutError)


class MediaNotStored(Exception):
    """The store did not take a file. Raised by MediaStore; it fails the attempt, to be tried again."""


class AtomicFilesStore(FSFilesStore):
    """Scrapy's folder; but a file is there whole or not at all, whoever is killed meanwhile."""

    def persist_file(self, path: Any, buf: BytesIO, info: Any, *_: Any, **__: Any) -> None:
        """Write beside it, then rename."""
        part = f"{path}.{uuid4().hex}.part"
        super().persist_file(part, buf, info)
        self._get_filesystem_path(part).replace(self._get_filesystem_path(path))


class MediaStore:
    """A store of Scrapy's, asked by the pipeline; `known` are the paths it was found to hold."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.known: set[str] = set()

    def stat_file(self, path: str, info: Any) -> "Deferred[Any]":
        """What the store says of *path*; empty where it has no such file."""
        return maybeDeferred(self.store.stat_file, path, info).addCallback(self._remember, path)

    def _remember(self, stat: Any, path: str) -> Any:
        if stat:
            self.known.add(path)
        return stat

    async def persist_file(
        self, path: str, buf: BytesIO, info: Any, meta: Any = None, headers: Any = None
    ) -> None:
        """Keep a file, with its true type. Raises MediaNotStored, whatever the store raises."""
        kind, _ = mimetypes.guess_type(path)
        headers = {"Content-Type": kind} if kind else None
        try:
            await ensure_awaitable(self.store.persist_file(path, buf, info, meta, headers))
        except Exception as error:  # the boundary to any store: it may raise anything
            raise MediaNotStored(f"{path} could not be stored: {error}") from error


@dataclass(slots=True)
class RecordMedia:
    """What one record wants kept.

    `urls` are, by the field for the links, a URL or a list of them; `requests` are by the URL.
    """

    record: ItemAdapter
    urls: dict[str, Any]
    requests: dict[str, Request] = field(default_factory=dict)


class MediaLinks(FilesPipeline):
    """What both pipelines share. A record type names the fields by its `marker`.

    A link is the path in the store; behind CATLOG_MEDIA_URL where that is set, and behind the
    store's own URI for S3 and Google Cloud Storage. The path depends on the URL alone. So an image
    that was kept once keeps its link, even where it could not be fetched again.
    """

    marker: ClassVar[type[ImagesOf] | type[FilesOf]]
    store_setting: ClassVar[str]
    store: Any  # a MediaStore

    def __init__(self, store_uri: Any, *args: Any, crawler: Crawler, **kwargs: Any) -> None:
        super().__init__(store_uri, *args, crawler=crawler, **kwargs)
        attempt, settings = running_attempt(crawler), crawler.settings
        self.attempt = attempt
        self.fields: dict[Any, dict[str, str]] = {
            record: record.media_fields(self.marker) for record in attempt.records.values()
        }
        self.only = next(iter(self.fields)) if len(self.fields) == 1 else None
        self.timeout = min(
            settings.getfloat("CATLOG_MEDIA_TIMEOUT"), settings.getfloat("DOWNLOAD_TIMEOUT")
        )
        self.prefix = link_prefix(settings["CATLOG_MEDIA_URL"], str(store_uri))
        self.concurrency = asyncio.Semaphore(settings.getint("CONCURRENT_REQUESTS"))
        self.silent_requests: Counter[str | None] = Counter()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Raises ConfigurationError: Scrapy would go on without the pipeline."""
        try:
            return super().from_crawler(crawler)
        except (NotConfigured, ValueError, LookupError) as error:
            uri = crawler.settings[cls.store_setting]
            raise ConfigurationError(
                f"{cls.store_setting} = {uri!r} cannot be used: {error!r}."
                " Name a folder, or a store as in Scrapy's documentation: s3://bucket/path/."
            ) from error

    def _get_store(self, uri: str) -> Any:
        store: Any = super()._get_store(uri)
        return MediaStore(AtomicFilesStore(uri) if type(store) is FSFilesStore else store)

    async def process_item(self, item: Any, spider: Any = None) -> Any:
        """The *item*, its links filled in. Raises MediaNotStored."""
        parts = item.items if isinstance(item, Batch) else [item]
        record = item.record if isinstance(item, Batch) else None
        media = (self._media_of(part, record) for part in parts)
        await asyncio.gather(*(self._keep(one) for one in media if one))
        return item

    def _media_of(self, item: Any, record: Any) -> RecordMedia | None:
        """What is no item, or of no known type, or has no URLs, is for the check to judge."""
        fields = self.fields.get(getattr(item, "record", None) or record or self.only)
        if not fields or not ItemAdapter.is_item(item):
            return None
        adapter = ItemAdapter(item)
        urls = {name: adapter.get(source) for name, source in fields.items()}
        given = {name: value for name, value in urls.items() if isinstance(value, str | list)}
        return RecordMedia(adapter, given) if given else None

    async def _keep(self, media: RecordMedia) -> None:
        # A few records at a time: what waits in the downloader could not be called off any more.
        async with self.concurrency:
            await super().process_item(media)

    def get_media_requests(self, item: RecordMedia, info: Any) -> list[Request]:
        """One for each URL that is one."""
        for urls in item.urls.values():
            for url in _strings(urls):
                try:
                    item.requests[url] = self._request(url)
                except ValueError as error:
                    self._count(url, "no URL", error)
        return list(item.requests.values())

    def _request(self, url: str) -> Request:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("not an absolute http URL")  # least of all a file of this machine
        return Request(url, callback=NO_CALLBACK, meta={"download_timeout": self.timeout})

    async def media_to_download(  # type: ignore[override]
        self, request: Request, info: Any, *, item: Any = None
    ) -> Any:
        """What the store has already; or None: fetch it. Raises FileException: that is no use."""
        found = await ensure_awaitable(super().media_to_download(request, info, item=item))
        if found is None and self.silent_requests[_host(request)] >= MAX_SILENT_REQUESTS:
            error = FileException(f"{_host(request)} does not answer")
            self._count(request.url, "server silent", error)
            raise error
        return found

    async def media_downloaded(
        self, response: Response, request: Request, info: Any, *, item: Any = None
    ) -> Any:
        """Keep what came. Raises FileException where it is not what was asked for."""
        self.silent_requests.pop(_host(request), None)
        if response.status != 200:
            raise FileException(f"HTTP {response.status}")
        return await super().media_downloaded(response, request, info, item=item)

    def media_failed(self, failure: Failure, request: Request, info: Any) -> NoReturn:
        """Count it. Raises FileException; or MediaNotStored, which is no fault of the source."""
        error = failure.value
        assert error is not None
        self.attempt.received += 1  # nothing came, but the crawl goes on
        if isinstance(error.__cause__, MediaNotStored):
            raise error.__cause__
        if isinstance(error, SILENT_ERRORS):
            self.silent_requests[_host(request)] += 1
        self._count(request.url, failure_label(error), error)
        super().media_failed(failure, request, info)

    def _count(self, url: str, reason: str, error: BaseException) -> None:
        stats = self.crawler.stats
        stats.inc_value("media/failed")
        stats.inc_value(f"media/failed/{reason}")
        if stats.get_value("media/first_failure") is None:
            stats.set_value("media/first_failure", redact(f"{url}: {reason}: {error}")[:2000])

    def item_completed(self, results: list[Any], item: RecordMedia, info: Any) -> RecordMedia:
        """Write the links into the record, in the order of its URLs. Raises MediaNotStored."""
        links = {
            url: self._link(request, result)
            for (url, request), (_, result) in zip(item.requests.items(), results, strict=True)
        }
        for name, urls in item.urls.items():
            kept = [link for url in _strings(urls) if (link := links.get(url))]
            item.record[name] = kept if isinstance(urls, list) else next(iter(kept), None)
        return item

    def _link(self, request: Request, result: Any) -> str | None:
        """Where the file is: as kept now, or as it was kept before."""
        if isinstance(result, Failure) and isinstance(result.value, MediaNotStored):
            raise result.value
        path = self.file_path(request)
        if isinstance(result, Failure) and path not in self.store.known:
            return None
        return f"{self.prefix}{path}"

    def file_path(
        self, request: Request, response: Any = None, info: Any = None, *, item: Any = None
    ) -> str:
        """`full/<sha1 of the URL>` and the URL's extension: an image, too, is kept as it came."""
        return FilesPipeline.file_path(self, request)


class ImageLinks(MediaLinks, ImagesPipeline):
    """Keeps images as they came, once they prove to be images, whole ones. Thumbnails are JPEG."""

    marker = ImagesOf
    store_setting = "IMAGES_STORE"

    def convert_image(
        self, image: Any, size: tuple[int, int] | None = None, *, response_body: BytesIO
    ) -> tuple[Any, BytesIO]:
        """Scrapy makes JPEG of everything, and black of what was transparent: only thumbnails."""
        if size is None:
            return image, response_body
        return super().convert_image(image, size, response_body=response_body)


class FileLinks(MediaLinks):
    """Keeps files of any sort."""

    marker = FilesOf
    store_setting = "FILES_STORE"


def failure_label(error: BaseException) -> str:
    """Why a request came to nothing, in words few enough to be counted by."""
    if isinstance(error, IgnoreRequest):
        return "forbidden by robots.txt" if "robots.txt" in str(error) else "filtered"
    if type(error) is FileException and error.__cause__ is None:
        return str(error)
    return type(error.__cause__ or error).__name__


def link_prefix(url: str | None, store_uri: str) -> str:
    """What the links begin with: CATLOG_MEDIA_URL, or the URI of a store that anyone can reach.

    >>> link_prefix(None, "s3://shop/media/")
    's3://shop/media/'
    >>> link_prefix(None, "/srv/media"), link_prefix("https://cdn.example/m", "/srv/media")
    ('', 'https://cdn.example/m/')
    """
    if url:
        return url.rstrip("/") + "/"
    # Not of FTP: the URI may hold a password.
    return store_uri if store_uri.startswith(("s3://", "gs://")) else ""


def _strings(urls: Any) -> list[str]:
    return [url for url in (urls if isinstance(urls, list) else [urls]) if isinstance(url, str)]


def _host(request: Request) -> str | None:
    return urlsplit(request.url).hostname
