"""One base for each way of reading a source that spiders of several sources or operations share."""
