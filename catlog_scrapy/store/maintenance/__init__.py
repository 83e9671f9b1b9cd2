"""Maintenance: tick, prune, reset."""
