"""Scrapy project like a user's, with spiders that need no network."""
