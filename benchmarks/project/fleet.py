"""Settings of the project on a catlog node; what differs from `stock`."""

from benchmarks.project.stock import BOT_NAME, LOG_LEVEL, SPIDER_MODULES, TELNETCONSOLE_ENABLED

__all__ = [
    "ADDONS",
    "BOT_NAME",
    "DOWNLOAD_HANDLERS",
    "LOG_LEVEL",
    "SPIDER_MODULES",
    "TELNETCONSOLE_ENABLED",
]

# The spiders begin with a page that takes no time.
DOWNLOAD_HANDLERS = {"data": "scrapy.core.downloader.handlers.datauri.DataURIDownloadHandler"}
ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}
