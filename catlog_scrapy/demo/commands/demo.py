"""`scrapy demo`, imported when it is used: Scrapy loads this module at each command."""

from catlog_scrapy.entry_points import LazyCommand


class Demo(LazyCommand):
    """Load all five sources, change them, load them again, and query them."""

    name = "demo"
    module = "catlog_scrapy.demo.command"
