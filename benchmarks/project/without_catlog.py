"""Settings of the same project without catlog, for Scrapy as it is."""

from benchmarks.project.settings import BOT_NAME, EXTENSIONS, SPIDER_MODULES

__all__ = ["BOT_NAME", "COMMANDS_MODULE", "EXTENSIONS", "SPIDER_MODULES", "TELNETCONSOLE_ENABLED"]

# Scrapy's own `crawl`: catlog's stands in for it wherever catlog is installed.
COMMANDS_MODULE = "scrapy.commands"
# As in catlog.
TELNETCONSOLE_ENABLED = False
