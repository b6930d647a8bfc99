"""The log on disk: segments of checksummed batches, planned on the loop and written on a thread."""
