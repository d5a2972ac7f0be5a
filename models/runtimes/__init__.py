"""The ways to run a truncated network, each behind `models.runtime.Runtime`."""
