"""Scrapy middlewares: backpressure for `start()`, Retry-After and robots.txt."""
