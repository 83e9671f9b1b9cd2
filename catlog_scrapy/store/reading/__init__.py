"""Queries for readers: pages, listings, history, status."""
