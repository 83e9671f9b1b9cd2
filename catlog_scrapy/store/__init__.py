"""Every query and every transaction, one verb a function; the only place that changes a state.

The order of locks: provider's advisory lock, parent catalog, catalog, instances by id.
"""
