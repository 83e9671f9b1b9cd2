"""State of a running crawl: its attempt, backpressure, downloads and outcome."""
