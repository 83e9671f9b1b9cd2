"""One crawl while it runs: attempt, backpressure, outcome."""
