"""Settings of the project; ADDONS makes it a catlog project."""

BOT_NAME = "benchmarks"
SPIDER_MODULES = ["benchmarks.project.spiders"]
ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}
# Spiders that measure catlog alone begin with a page that takes no time.
DOWNLOAD_HANDLERS = {"data": "scrapy.core.downloader.handlers.datauri.DataURIDownloadHandler"}
EXTENSIONS = {"benchmarks.project.stopwatch.Stopwatch": 0}
