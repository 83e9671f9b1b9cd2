"""Spiders in this process, by the queue."""
