"""Routes for executors outside of this project."""
