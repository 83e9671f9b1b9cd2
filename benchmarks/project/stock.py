"""Settings of the project on a stock scrapyd, without catlog."""

BOT_NAME = "fleet"
SPIDER_MODULES = ["benchmarks.project.fleet_spiders"]
# Scrapy's own `crawl`: catlog's stands in for it wherever catlog is installed, and takes longer to
# import.
COMMANDS_MODULE = "scrapy.commands"
LOG_LEVEL = "INFO"
TELNETCONSOLE_ENABLED = False
