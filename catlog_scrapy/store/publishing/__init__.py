"""Publishing: from the results of a catalog to current records."""
