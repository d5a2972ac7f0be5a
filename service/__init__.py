"""HTTP, command line, jobs and search page over `models` and `index`."""

import os

# Before anything loads an OpenMP, which reads it once; `service.threads` says why.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
