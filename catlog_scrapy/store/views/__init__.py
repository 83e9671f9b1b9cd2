"""Views for SQL readers: typed views, as-of views, lineage."""
