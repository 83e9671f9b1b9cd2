"""Base spiders: ways of reading a source that several spiders share."""
