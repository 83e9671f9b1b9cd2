"""Scrapy extension that reports the outcome of a crawl to the store."""
