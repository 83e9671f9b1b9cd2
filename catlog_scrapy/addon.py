"""One ADDONS line makes a Scrapy project a catlog project. The only reader of the environment."""

from pathlib import Path
from typing import Any, cast

from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares import robotstxt
from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.settings import BaseSettings, default_settings
from scrapy.utils.misc import load_object

from catlog_scrapy import config
from catlog_scrapy.crawl.attempt import attempt_of
from catlog_scrapy.crawl.downloader import Downloader
from catlog_scrapy.extensions.outcome import OutcomeExtension
from catlog_scrapy.middlewares.backpressure import StartBackpressureMiddleware
from catlog_scrapy.middlewares.retry_after import RetryAfterMiddleware
from catlog_scrapy.middlewares.robots import RobotsTxtMiddleware
from catlog_scrapy.pipelines.store import StorePipeline
from catlog_scrapy.pipelines.validate import ValidatePipeline
from catlog_scrapy.records import FilesOf, ImagesOf

# Named, not imported: only who keeps media needs them, and Pillow.
MEDIA_PIPELINES: dict[type[ImagesOf] | type[FilesOf], tuple[str, str]] = {
    ImagesOf: ("catlog_scrapy.pipelines.media.ImageLinks", "IMAGES_STORE"),
    FilesOf: ("catlog_scrapy.pipelines.media.FileLinks", "FILES_STORE"),
}


class CatlogAddon:
    """Puts check and store behind the project's pipelines, and watches the crawl.

    Only for a crawler that runs a claimed attempt: `scrapy check`, `parse`, `shell` and `fetch`
    open spiders too.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "CatlogAddon":
        return cls(crawler)

    @classmethod
    def update_pre_crawler_settings(cls, settings: BaseSettings) -> None:
        """Fill in the defaults and the environment's values of all CATLOG_ settings."""
        config.fill_in(settings)

    def update_settings(self, settings: BaseSettings) -> None:
        """Called once a crawler: nothing unless it runs an attempt."""
        attempt = attempt_of(self.crawler)
        if attempt is None:
            return
        pipelines = settings.get_component_priority_dict_with_base("ITEM_PIPELINES")
        last = max((order for order in pipelines.values() if order is not None), default=0)
        settings.set("ITEM_PIPELINES", dict(settings.getdict("ITEM_PIPELINES")), "addon")
        component = settings["ITEM_PIPELINES"]
        for marker, (pipeline, store) in MEDIA_PIPELINES.items():
            if any(record.media_fields(marker) for record in attempt.records.values()):
                last += 1
                component.set(pipeline, last, "addon")
                settings.set(store, str(Path(settings["CATLOG_HOME"], "media")), "default")
        component.set(ValidatePipeline, last + 1, "addon")
        component.set(StorePipeline, last + 2, "addon")
        middlewares = settings.get_component_priority_dict_with_base("SPIDER_MIDDLEWARES")
        first = min((order for order in middlewares.values() if order is not None), default=0)
        settings["SPIDER_MIDDLEWARES"].set(StartBackpressureMiddleware, first - 1, "addon")
        self._polite(settings)
        settings["EXTENSIONS"].set(OutcomeExtension, 0, "addon")
        # An attempt starts from nothing: a request left by another one is no part of it.
        settings.set("JOBDIR", None, "cmdline")

    @staticmethod
    def _polite(settings: BaseSettings) -> None:
        """Middlewares that keep to what sources ask for, beside or instead of Scrapy's own."""
        with_base = settings.get_component_priority_dict_with_base("DOWNLOADER_MIDDLEWARES")
        orders = {load_object(cast(Any, path)): order for path, order in with_base.items()}
        middlewares = settings["DOWNLOADER_MIDDLEWARES"]
        # Nearer to the source than what repeats requests.
        retry = max(order or 0 for cls, order in orders.items() if issubclass(cls, RetryMiddleware))
        middlewares.set(RetryAfterMiddleware, retry + 1, "addon")
        stock = robotstxt.RobotsTxtMiddleware
        if (order := orders.get(stock)) is not None:
            middlewares.set(stock, None, "addon")
            middlewares.set(RobotsTxtMiddleware, order, "addon")
        if settings["DOWNLOADER"] == default_settings.DOWNLOADER:
            settings.set("DOWNLOADER", Downloader, "addon")


def is_enabled(settings: BaseSettings) -> bool:
    """Whether the project has the ADDONS line."""
    return any(
        order is not None and load_object(path) is CatlogAddon
        for path, order in settings.getdict("ADDONS").items()
    )
