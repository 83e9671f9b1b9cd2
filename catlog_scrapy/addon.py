"""Scrapy add-on that makes a Scrapy project a catlog project."""

from pathlib import Path
from typing import Any, cast

from scrapy.crawler import Crawler
from scrapy.settings import BaseSettings, default_settings
from scrapy.utils.misc import load_object

from catlog_scrapy import config

# Paths, not classes: every command imports this module, and only crawls need the components.
DOWNLOADER = "catlog_scrapy.crawl.downloader.Downloader"
OUTCOME = "catlog_scrapy.extensions.outcome.OutcomeExtension"
START_BACKPRESSURE = "catlog_scrapy.middlewares.backpressure.StartBackpressureMiddleware"
RETRY_AFTER = "catlog_scrapy.middlewares.retry_after.RetryAfterMiddleware"
ROBOTS = "catlog_scrapy.middlewares.robots.RobotsTxtMiddleware"
TRUNCATION = "catlog_scrapy.middlewares.truncation.TruncationMiddleware"
CACHED_TRUNCATION = "catlog_scrapy.middlewares.truncation.CachedTruncationMiddleware"
STORE = "catlog_scrapy.pipelines.store.StorePipeline"
VALIDATE = "catlog_scrapy.pipelines.validate.ValidatePipeline"
# The components of every attempt.
COMPONENTS = (
    DOWNLOADER,
    OUTCOME,
    START_BACKPRESSURE,
    RETRY_AFTER,
    ROBOTS,
    TRUNCATION,
    STORE,
    VALIDATE,
)
FEED_EXPORT = "catlog_scrapy.extensions.feed_export.FeedExporter"
IMAGES = "catlog_scrapy.pipelines.media.ImageLinks"
FILES = "catlog_scrapy.pipelines.media.FileLinks"


class CatlogAddon:
    """Add-on that puts catlog's components into crawlers that run a claimed attempt.

    Other crawlers get only the exporter of feeds that knows catlog's yields: `scrapy check`,
    `parse`, `shell` and `fetch` open spiders too.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "CatlogAddon":
        """Make the add-on for *crawler*."""
        return cls(crawler)

    @classmethod
    def update_pre_crawler_settings(cls, settings: BaseSettings) -> None:
        """Fill in the defaults and the environment's values of all CATLOG_ settings."""
        config.fill_in(settings)

    def update_settings(self, settings: BaseSettings) -> None:
        """Add the components to the settings of a crawler that runs an attempt."""
        from catlog_scrapy.crawl.attempt import attempt_of
        from catlog_scrapy.records import FilesOf, ImagesOf

        self._export_batches(settings)
        attempt = attempt_of(self.crawler)
        if attempt is None:
            return
        pipelines = settings.get_component_priority_dict_with_base("ITEM_PIPELINES")
        last = max((order for order in pipelines.values() if order is not None), default=0)
        settings.set("ITEM_PIPELINES", dict(settings.getdict("ITEM_PIPELINES")), "addon")
        component = settings["ITEM_PIPELINES"]
        for marker, pipeline, store in (
            (ImagesOf, IMAGES, "IMAGES_STORE"),
            (FilesOf, FILES, "FILES_STORE"),
        ):
            if any(record.media_fields(marker) for record in attempt.records.values()):
                last += 1
                component.set(pipeline, last, "addon")
                settings.set(store, str(Path(settings["CATLOG_HOME"], "media")), "default")
        component.set(VALIDATE, last + 1, "addon")
        component.set(STORE, last + 2, "addon")
        middlewares = settings.get_component_priority_dict_with_base("SPIDER_MIDDLEWARES")
        first = min((order for order in middlewares.values() if order is not None), default=0)
        settings["SPIDER_MIDDLEWARES"].set(START_BACKPRESSURE, first - 1, "addon")
        self._polite(settings)
        self._web_only(settings)
        settings["EXTENSIONS"].set(OUTCOME, 0, "addon")
        # An attempt starts from nothing: requests that another attempt left are not part of it.
        settings.set("JOBDIR", None, "cmdline")

    @staticmethod
    def _web_only(settings: BaseSettings) -> None:
        """Switch off Scrapy's handlers of files, data, FTP and S3 that the project does not name.

        A URL in an argument or a page could read files of this machine, or make up a page.
        """
        named = settings.getdict("DOWNLOAD_HANDLERS")
        for scheme in settings.getdict("DOWNLOAD_HANDLERS_BASE").keys() - {"http", "https"}:
            if scheme not in named:
                settings["DOWNLOAD_HANDLERS"].set(scheme, None, "addon")

    @staticmethod
    def _export_batches(settings: BaseSettings) -> None:
        """Put an exporter that knows catlog's yields in place of Scrapy's, if there are feeds."""
        if not settings.getdict("FEEDS"):
            return
        from scrapy.extensions.feedexport import FeedExporter

        with_base = settings.get_component_priority_dict_with_base("EXTENSIONS")
        for path, order in with_base.items():
            if order is not None and load_object(cast(Any, path)) is FeedExporter:
                settings["EXTENSIONS"].set(path, None, "addon")
                settings["EXTENSIONS"].set(FEED_EXPORT, order, "addon")

    @staticmethod
    def _polite(settings: BaseSettings) -> None:
        """Add middlewares for Retry-After, robots.txt (in place of Scrapy's) and truncation."""
        from scrapy.downloadermiddlewares.httpcache import HttpCacheMiddleware
        from scrapy.downloadermiddlewares.retry import RetryMiddleware
        from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware

        with_base = settings.get_component_priority_dict_with_base("DOWNLOADER_MIDDLEWARES")
        orders = {load_object(cast(Any, path)): order for path, order in with_base.items()}
        middlewares = settings["DOWNLOADER_MIDDLEWARES"]
        # Nearer to the source than the middlewares that repeat requests.
        retry = max(order or 0 for cls, order in orders.items() if issubclass(cls, RetryMiddleware))
        middlewares.set(RETRY_AFTER, retry + 1, "addon")
        middlewares.set(TRUNCATION, max(order or 0 for order in orders.values()) + 1, "addon")
        for cls, order in orders.items():
            if issubclass(cls, HttpCacheMiddleware) and order is not None:
                middlewares.set(CACHED_TRUNCATION, order - 1, "addon")
        if (order := orders.get(RobotsTxtMiddleware)) is not None:
            middlewares.set(RobotsTxtMiddleware, None, "addon")
            middlewares.set(ROBOTS, order, "addon")
        if settings["DOWNLOADER"] == default_settings.DOWNLOADER:
            settings.set("DOWNLOADER", DOWNLOADER, "addon")


def is_enabled(settings: BaseSettings) -> bool:
    """Return whether the project has the ADDONS line."""
    return any(
        order is not None and load_object(path) is CatlogAddon
        for path, order in settings.getdict("ADDONS").items()
    )
