"""Item pipelines after those of the project: media, validate, store."""
