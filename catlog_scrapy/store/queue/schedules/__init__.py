"""Schedules: due times become catalogs, backfills, changes."""
