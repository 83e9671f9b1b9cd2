"""Media pipelines: they store a record's images and files, and put links into its fields.

The pipelines are Scrapy's, with all their settings. catlog adds: links go to the fields that the
record type declares, a failed request keeps a former link, and a silent host costs little time.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, ClassVar, NoReturn, Self
from urllib.parse import urlsplit

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
from twisted.python.failure import Failure

from catlog_scrapy.crawl.attempt import MAX_ERROR_CHARS, running_attempt
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.pipelines.media_stores import AtomicFilesStore, MediaNotStored, MediaStore
from catlog_scrapy.records import Batch, FilesOf, ImagesOf
from catlog_scrapy.redaction import redact

# After this many SILENT_ERRORS in a row, a host gets no more requests.
MAX_SILENT_REQUESTS = 5
URL_TYPES = (str, list)
SILENT_ERRORS = (CannotResolveHostError, DownloadConnectionRefusedError, DownloadTimeoutError)


@dataclass(slots=True)
class RecordMedia:
    """Media of one record.

    `urls` maps each field for links to a URL or a list of URLs; `requests` maps URLs to requests.
    """

    record: ItemAdapter
    urls: dict[str, Any]
    requests: dict[str, Request] = field(default_factory=dict)


class MediaLinks(FilesPipeline):
    """Base of both pipelines, which differ in the `marker` of a record type's link fields.

    A link is the file's path in the store, with the prefix of `link_prefix`. The path depends only
    on the file's URL, so a stored image keeps its link when it cannot be fetched again.
    """

    marker: ClassVar[type[ImagesOf] | type[FilesOf]]
    store_setting: ClassVar[str]
    store: Any  # a MediaStore; FilesPipeline declares Scrapy's own stores

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
        """Make the pipeline. Raises ConfigurationError: Scrapy would run without the pipeline."""
        try:
            return super().from_crawler(crawler)
        except (NotConfigured, ValueError, LookupError) as error:
            uri = crawler.settings[cls.store_setting]
            raise ConfigurationError(
                f"{cls.store_setting} = {uri!r} is not a usable store ({error!r}); use a folder, or"
                " a URI as in Scrapy's documentation: s3://bucket/path/."
            ) from error

    def _get_store(self, uri: str) -> Any:
        store: Any = super()._get_store(uri)
        return MediaStore(AtomicFilesStore(uri) if type(store) is FSFilesStore else store)

    async def process_item(self, item: Any, spider: Any = None) -> Any:
        """Store the media of *item* and set its links. Raises MediaNotStored."""
        found = self._media_of_parts(item)
        if first := next(found, None):
            await asyncio.gather(*map(self._keep, (first, *found)))
        return item

    def has_media(self, item: Any) -> bool:
        """Return whether *item* has a URL to store."""
        return next(self._media_of_parts(item), None) is not None

    def _media_of_parts(self, item: Any) -> Iterator[RecordMedia]:
        if isinstance(item, Batch):
            found = (self._media_of(part, item.record) for part in item.items)
            return filter(None, found)
        media = self._media_of(item, None)
        return iter((media,) if media else ())

    def _media_of(self, item: Any, record: Any) -> RecordMedia | None:
        """Return the media of an item; None without URLs or for an invalid item."""
        # An ItemAdapter costs as much as the validation of a dict, and most items are dicts.
        is_dict = type(item) is dict
        own = None if is_dict else getattr(item, "record", None)
        fields = self.fields.get(own or record or self.only)
        if not fields or not (is_dict or ItemAdapter.is_item(item)):
            return None
        get = item.get if is_dict else ItemAdapter(item).get
        given = {}
        for name, source in fields.items():
            value = get(source)
            if isinstance(value, URL_TYPES):
                given[name] = value
        return RecordMedia(ItemAdapter(item), given) if given else None

    async def _keep(self, media: RecordMedia) -> None:
        # Requests in the downloader cannot be cancelled singly, so few records enter at a time.
        async with self.concurrency:
            await super().process_item(media)

    def get_media_requests(self, item: RecordMedia, info: Any) -> list[Request]:
        """Return a request for each valid URL; count the others."""
        for urls in item.urls.values():
            for url in _strings(urls):
                try:
                    item.requests[url] = self._request(url)
                except ValueError as error:
                    self._count(url, "invalid URL", error)
        return list(item.requests.values())

    def _request(self, url: str) -> Request:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("not an absolute http URL")  # a file: URL would read this machine
        return Request(url, callback=NO_CALLBACK, meta={"download_timeout": self.timeout})

    async def media_to_download(  # type: ignore[override]
        self, request: Request, info: Any, *, item: Any = None
    ) -> Any:
        """Return a stored file, or None to fetch it. Raises FileException for a silent host."""
        found = await ensure_awaitable(super().media_to_download(request, info, item=item))
        if found is None and self.silent_requests[_host(request)] >= MAX_SILENT_REQUESTS:
            error = FileException(f"{_host(request)} does not answer")
            self._count(request.url, "server silent", error)
            raise error
        return found

    async def media_downloaded(
        self, response: Response, request: Request, info: Any, *, item: Any = None
    ) -> Any:
        """Store the response's file. Raises FileException for an unusable response."""
        self.silent_requests.pop(_host(request), None)
        if response.status != 200:
            raise FileException(f"HTTP {response.status}")
        return await super().media_downloaded(response, request, info, item=item)

    def media_failed(self, failure: Failure, request: Request, info: Any) -> NoReturn:
        """Count a failed request. Raises FileException, or the store's MediaNotStored."""
        error = failure.value
        assert error is not None
        self.attempt.received += 1  # a failure is progress: the crawl has not stalled
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
            text = redact(f"{url}: {reason}: {error}")
            stats.set_value("media/first_failure", text[:MAX_ERROR_CHARS])

    def item_completed(self, results: list[Any], item: RecordMedia, info: Any) -> RecordMedia:
        """Set the record's links, in the order of its URLs. Raises MediaNotStored."""
        links = {
            url: self._link(request, result)
            for (url, request), (_, result) in zip(item.requests.items(), results, strict=True)
        }
        for name, urls in item.urls.items():
            kept = [link for url in _strings(urls) if (link := links.get(url))]
            item.record[name] = kept if isinstance(urls, list) else next(iter(kept), None)
        return item

    def _link(self, request: Request, result: Any) -> str | None:
        """Return the link of a file that is stored now or was stored before, else None."""
        if isinstance(result, Failure) and isinstance(result.value, MediaNotStored):
            raise result.value
        path = self.file_path(request)
        if isinstance(result, Failure) and path not in self.store.known:
            return None
        return f"{self.prefix}{path}"

    def file_path(
        self, request: Request, response: Any = None, info: Any = None, *, item: Any = None
    ) -> str:
        """Return `full/<sha1 of the URL>` with the URL's extension, for images too."""
        return FilesPipeline.file_path(self, request)


class ImageLinks(MediaLinks, ImagesPipeline):
    """Pipeline that stores valid, complete images unchanged, and thumbnails as JPEG."""

    marker = ImagesOf
    store_setting = "IMAGES_STORE"

    def convert_image(
        self, image: Any, size: tuple[int, int] | None = None, *, response_body: BytesIO
    ) -> tuple[Any, BytesIO]:
        """Convert only thumbnails, as Scrapy's JPEG makes transparent pixels black."""
        if size is None:
            return image, response_body
        return super().convert_image(image, size, response_body=response_body)


class FileLinks(MediaLinks):
    """Pipeline that stores files of any type."""

    marker = FilesOf
    store_setting = "FILES_STORE"


def failure_label(error: BaseException) -> str:
    """Return a short reason for a failed request, for the crawl's statistics."""
    if isinstance(error, IgnoreRequest):
        return "forbidden by robots.txt" if "robots.txt" in str(error) else "filtered"
    if type(error) is FileException and error.__cause__ is None:
        return str(error)
    return type(error.__cause__ or error).__name__


def link_prefix(url: str | None, store_uri: str) -> str:
    """Return the prefix of links: CATLOG_MEDIA_URL, or the URI of an S3 or Google Cloud store.

    >>> link_prefix(None, "s3://shop/media/")
    's3://shop/media/'
    >>> link_prefix(None, "/srv/media"), link_prefix("https://cdn.example/m", "/srv/media")
    ('', 'https://cdn.example/m/')
    """
    if url:
        return url.rstrip("/") + "/"
    # The URI of an FTP store may contain a password.
    return store_uri if store_uri.startswith(("s3://", "gs://")) else ""


def _strings(urls: Any) -> list[str]:
    return [url for url in (urls if isinstance(urls, list) else [urls]) if isinstance(url, str)]


def _host(request: Request) -> str | None:
    return urlsplit(request.url).hostname
