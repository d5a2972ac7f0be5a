"""One command per claim; `results/` holds what README and docs quote."""
