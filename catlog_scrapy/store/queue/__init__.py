"""The queue: catalogs, instances, claims, attempts, schedules, nodes."""
