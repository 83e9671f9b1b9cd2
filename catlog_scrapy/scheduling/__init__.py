"""What is due, and how long to wait: pure functions, the clock handed in."""
