"""Routes that read views and listings."""
