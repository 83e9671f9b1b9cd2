"""Spiders of the five sources, one operation in each file."""
