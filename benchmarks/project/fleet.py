"""Settings of the project on a catlog node; only ADDONS differs from `stock`."""

from benchmarks.project.stock import BOT_NAME, LOG_LEVEL, SPIDER_MODULES, TELNETCONSOLE_ENABLED

__all__ = ["ADDONS", "BOT_NAME", "LOG_LEVEL", "SPIDER_MODULES", "TELNETCONSOLE_ENABLED"]

ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}
