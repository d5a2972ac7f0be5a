"""The search page in a real browser, on the real service."""
