"""One command per claim; `results/` holds what README and docs quote."""

import service as service  # Before torch is loaded: it says how OpenMP's threads wait.
