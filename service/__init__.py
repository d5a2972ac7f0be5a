"""HTTP, command line, jobs and search page over `models` and `index`."""
