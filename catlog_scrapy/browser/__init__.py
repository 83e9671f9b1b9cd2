"""One browser for all crawls of a process that need one. Nothing here is imported before that."""
