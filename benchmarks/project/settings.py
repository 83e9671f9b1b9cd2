"""Settings of the project; ADDONS makes it a catlog project."""

BOT_NAME = "benchmarks"
SPIDER_MODULES = ["benchmarks.project.spiders"]
ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}
EXTENSIONS = {"benchmarks.project.stopwatch.Stopwatch": 0}
