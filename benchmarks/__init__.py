"""One command per claim; results lie in `results/`, with the machine described."""

import service as service  # Before torch is loaded: it says how OpenMP's threads wait.
