"""What can go wrong with what a caller hands to `index`; every error has a stable code."""


class CollectionError(Exception):
    """An error that a caller can act on.

    `code` is stable and machine-readable (kebab-case); the message names the input and the remedy.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EvaluationError(CollectionError):
    """Rankings cannot be measured, or not by this ground truth; codes begin with `evaluation-`
    or `truth-`."""


class DiskError(CollectionError, OSError):
    """The disk is full (`disk-full`) or fails (`disk-failed`): what was not acknowledged is undone,
    searches go on, and the same call works once the disk does."""
