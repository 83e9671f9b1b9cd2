"""Scrapy commands, one a file: each composes the parts for one thing that people do."""
