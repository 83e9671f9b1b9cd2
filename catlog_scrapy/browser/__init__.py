"""Browser shared by the crawls of a process; imported only by crawls that need a browser."""
