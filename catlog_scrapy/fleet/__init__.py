"""Spiders on scrapyd nodes, by the queue."""
