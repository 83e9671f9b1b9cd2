"""The sources of the shipped spiders, served locally: the same bytes on every machine."""
