"""Record tables: the two typed tables of each kind, in the schema `records`."""
