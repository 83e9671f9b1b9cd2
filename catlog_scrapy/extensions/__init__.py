"""What became of the crawl goes to the store."""
