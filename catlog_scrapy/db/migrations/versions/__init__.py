"""Revisions of the schema, a file each."""
