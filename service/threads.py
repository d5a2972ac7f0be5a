"""The one place that says how many threads and processes do what.

The network's own threads are torch's, faiss searches single queries on one. What is here decodes,
or waits for one of the others.
"""

from dataclasses import dataclass

from service.settings import Settings


@dataclass(frozen=True)
class ThreadPlan:
    """How many of each."""

    decode: int
    """Decoding processes in each lane; a lane that is not used has none."""

    read: int
    """Threads that read files and hand them to the decoders: a few more than there are decoders,
    so that none of those waits for its next picture."""

    queries: int
    """Searches at work at once: a batch in the network, another being gathered, others decoded."""

    uploads: int
    """Uploads at work at once; each reads so far ahead that this bounds memory."""


def plan(settings: Settings) -> ThreadPlan:
    """Threads for these settings.

    >>> plan(Settings(batch_size=16, decode_threads=2))
    ThreadPlan(decode=2, read=4, queries=34, uploads=4)
    """
    return ThreadPlan(
        decode=settings.decode_threads,
        read=settings.decode_threads + 2,
        queries=2 * settings.batch_size + settings.decode_threads,
        uploads=4,
    )
