"""The settings of the same project on a node of the fleet: the ADDONS line is the difference."""

from benchmarks.project.stock import BOT_NAME, LOG_LEVEL, SPIDER_MODULES, TELNETCONSOLE_ENABLED

__all__ = ["ADDONS", "BOT_NAME", "LOG_LEVEL", "SPIDER_MODULES", "TELNETCONSOLE_ENABLED"]

ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}
