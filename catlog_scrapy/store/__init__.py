"""Queries and transactions; no other package changes a state.

The order of locks: provider's advisory lock, parent catalog, catalog, instances by id.
"""
