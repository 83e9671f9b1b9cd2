"""Due times, backoff, cursors and argument templates as pure functions; callers pass the clock."""
