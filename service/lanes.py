"""Who goes first where work queues up."""

from typing import Literal, get_args

Lane = Literal["query", "upload", "bulk"]
"""Somebody waits for a search; somebody waits for an upload; a job, for which nobody waits."""

LANES: tuple[Lane, ...] = get_args(Lane)
"""All of them, the first served first."""
