"""Batch indexing: sources of pictures, and the job that reads them."""
