"""Authentication and permissions of HTTP clients."""
