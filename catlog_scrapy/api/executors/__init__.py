"""Routes for executors outside this project."""
