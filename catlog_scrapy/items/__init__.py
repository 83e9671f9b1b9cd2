"""Record types of the five sources."""
