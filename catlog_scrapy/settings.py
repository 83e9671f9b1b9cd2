"""Settings of this project. Another project needs only the ADDONS line."""

BOT_NAME = "catlog_scrapy"
SPIDER_MODULES = ["catlog_scrapy.spiders"]
NEWSPIDER_MODULE = "catlog_scrapy.spiders"
COMMANDS_MODULE = "catlog_scrapy.demo.commands"

ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}

ROBOTSTXT_OBEY = True
CONCURRENT_REQUESTS_PER_DOMAIN = 8
DOWNLOAD_DELAY = 0
# A source that becomes slow gets fewer requests.
AUTOTHROTTLE_ENABLED = True
AUTOTHROTTLE_START_DELAY = 0
AUTOTHROTTLE_TARGET_CONCURRENCY = 8
FEED_EXPORT_ENCODING = "utf-8"
