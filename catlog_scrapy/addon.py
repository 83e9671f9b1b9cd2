"""One ADDONS line makes a Scrapy project a catlog project. The only reader of the environment."""

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares import robotstxt
from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.settings import BaseSettings, default_settings
from scrapy.utils.conf import closest_scrapy_cfg
from scrapy.utils.misc import load_object

from catlog_scrapy.crawl.attempt import attempt_of
from catlog_scrapy.crawl.downloader import Downloader
from catlog_scrapy.extensions.outcome import LoadingExtension
from catlog_scrapy.middlewares.backpressure import StartPressureMiddleware
from catlog_scrapy.middlewares.retry_after import RetryAfterMiddleware
from catlog_scrapy.middlewares.robots import RobotsTxtMiddleware
from catlog_scrapy.pipelines.store import StorePipeline
from catlog_scrapy.pipelines.validate import CheckPipeline
from catlog_scrapy.records import FilesOf, ImagesOf
from catlog_scrapy.redaction import PREFIX as SECRET

# Named, not imported: only who keeps media needs them, and Pillow.
MEDIA_PIPELINES: dict[type[ImagesOf] | type[FilesOf], tuple[str, str]] = {
    ImagesOf: ("catlog_scrapy.pipelines.media.ImageLinks", "IMAGES_STORE"),
    FilesOf: ("catlog_scrapy.pipelines.media.FileLinks", "FILES_STORE"),
}

# Above the project's settings (20) and a spider's (30), below the command line's (40).
ENVIRONMENT_PRIORITY = 35

DEFAULTS: dict[str, Any] = {
    "CATLOG_DATABASE_URL": None,  # None: the embedded server
    "CATLOG_HOME": None,  # a folder; None: .catlog beside scrapy.cfg
    "CATLOG_PROVIDERS": None,  # a folder of *.toml; None: providers/ in the project's package
    "CATLOG_VIEWS": None,  # a folder of *.sql; None: views/ in the project's package
    "CATLOG_PROJECT": None,  # what this project is called in the database; None: its BOT_NAME
    "CATLOG_NODE": None,  # this machine's name; None: its host name
    "CATLOG_CONCURRENCY": 4,  # crawls at once in one process
    "CATLOG_LEASE": 60.0,  # seconds a silent worker keeps its instances
    "CATLOG_POLL": 1.0,  # seconds between looks at an empty queue
    "CATLOG_GRACE": 10.0,  # seconds that crawls may go on after the first signal
    "CATLOG_RETRY_AFTER": 60.0,  # seconds that a crawl waits for a source that asks for it
    "CATLOG_LOG_KEEP": 30 * 86400.0,  # seconds that an attempt's log is kept
    "CATLOG_LOG_SIZE": 2**30,  # bytes that the logs of all attempts may have together
    "CATLOG_MEDIA_URL": None,  # what links to kept images begin with; None: as the store has it
    "CATLOG_MEDIA_TIMEOUT": 30.0,  # seconds that an image may take
    "CATLOG_RESOURCES": None,  # a file; None: resources.toml in the project's package
    "CATLOG_API_HOST": "127.0.0.1",
    "CATLOG_API_PORT": 8000,
    "CATLOG_API_CORS": [],  # origins whose pages may ask
    "CATLOG_API_PROXIES": [],  # addresses whose X-Forwarded-For is believed
    "CATLOG_API_BODY": 2**20,  # bytes that a request may have
    "CATLOG_API_BATCH": 16 * 2**20,  # bytes that a batch of results may have
    "CATLOG_API_PAGE": 1000,  # records that a page may have
    "CATLOG_API_TIMEOUT": 10.0,  # seconds that a request may take to arrive, and its query
    "CATLOG_API_ACCESS": 300.0,  # seconds that an access token counts
    "CATLOG_API_REFRESH": 14 * 86400.0,  # and a refresh token
    "CATLOG_REPLACED": False,  # this process goes on for one in which a crawl hung
    "CATLOG_ATTEMPT": None,  # the claimed attempt that this process is to run
}


# Of the settings that are numbers, those that 0 makes sense for.
MAY_BE_ZERO = {
    "CATLOG_API_PORT",
    "CATLOG_GRACE",
    "CATLOG_LOG_KEEP",
    "CATLOG_LOG_SIZE",
    "CATLOG_RETRY_AFTER",
}

# Where a project has them, in its own package.
PLACES = {
    "CATLOG_PROVIDERS": "providers",
    "CATLOG_VIEWS": "views",
    "CATLOG_RESOURCES": "resources.toml",
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
        """Fill in the defaults, and what the environment says about any CATLOG_ setting.

        Secrets are none: settings are copied, logged and shown.
        """
        for name, value in DEFAULTS.items():
            if name not in settings:
                settings.set(name, value, priority="default")
        for name, value in os.environ.items():
            if name.startswith("CATLOG_") and not name.startswith(SECRET):
                settings.set(name, value, priority=ENVIRONMENT_PRIORITY)
        root = Path(closest_scrapy_cfg() or "scrapy.cfg").absolute().parent
        home = root / (settings["CATLOG_HOME"] or ".catlog")
        settings.set("CATLOG_HOME", str(home), priority=settings.getpriority("CATLOG_HOME") or 0)
        for name, place in PLACES.items():
            if settings[name] is None:
                settings.set(name, str(project_package(settings, root) / place), "default")
        if settings["CATLOG_NODE"] is None:
            settings.set("CATLOG_NODE", socket.gethostname(), "default")

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
        component.set(CheckPipeline, last + 1, "addon")
        component.set(StorePipeline, last + 2, "addon")
        middlewares = settings.get_component_priority_dict_with_base("SPIDER_MIDDLEWARES")
        first = min((order for order in middlewares.values() if order is not None), default=0)
        settings["SPIDER_MIDDLEWARES"].set(StartPressureMiddleware, first - 1, "addon")
        self._polite(settings)
        settings["EXTENSIONS"].set(LoadingExtension, 0, "addon")
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


def project_package(settings: BaseSettings, root: Path) -> Path:
    """The folder of the project's own package: where its first spider module lies."""
    modules = settings.getlist("SPIDER_MODULES")
    spec = find_spec(modules[0].partition(".")[0]) if modules else None
    if spec is None or not spec.submodule_search_locations:
        return root
    return Path(next(iter(spec.submodule_search_locations)))


def is_enabled(settings: BaseSettings) -> bool:
    """Whether the project has the ADDONS line."""
    return any(
        order is not None and load_object(path) is CatlogAddon
        for path, order in settings.getdict("ADDONS").items()
    )
