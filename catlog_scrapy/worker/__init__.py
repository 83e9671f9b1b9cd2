"""Worker: claims instances from the queue and runs their spiders in this process."""
