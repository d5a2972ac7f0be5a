"""Decoding in processes that can be lost."""
