"""`scrapy demo`, imported when it is used: Scrapy loads this module at each command."""

from catlog_scrapy.commands import LazyCommand


class Demo(LazyCommand):
    """Stand-in for `scrapy demo`."""

    module = "catlog_scrapy.demo.command"
