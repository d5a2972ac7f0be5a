"""The one place that says how many threads and processes do what.

The processor is shared by the network, the processes that decode and FAISS, none of which knows
of the others. What keeps them out of each other's way:

- The network gets all cores (`forward`), decoding a process for each of them: whichever has work
  uses what the other leaves, so that no core is idle while any picture is under way. Processes of
  the bulk lane stand back (`decoding.pool.NICE`): a forward pass is a chain of parallel regions,
  of which each waits for its slowest thread, and a decoder that takes half a core from one thread
  takes it from all of them.
- Threads that wait for the end of a parallel region sleep. OpenMP's own habit is to spin, and
  torch and FAISS each bring an OpenMP: on two cores that decode as well, a forward pass was seen to
  take 20 times as long. `service/__init__.py` sets OMP_WAIT_POLICY, as it is read when the first
  of them is loaded.
- A search is one query of one client: FAISS gets one thread for it (`one_for_faiss`), where it
  would otherwise wake a team for every search and every searching thread.
"""

from dataclasses import dataclass

import faiss
import torch

from service.settings import Settings


@dataclass(frozen=True)
class ThreadPlan:
    """How many of each."""

    forward: int
    """Threads of a forward pass, whatever runs it; and of the pooling after it."""

    decode: int
    """Decoding processes in each lane; a lane that is not used has none."""

    read: int
    """Threads that read files and hand them to the decoders: a few more than there are decoders,
    so that none of those waits for its next picture."""

    queries: int
    """Searches at work at once: a batch in the network, another being gathered, others decoded."""

    examples: int
    """Threads that decode the pictures of a query beside its own: as many as there are decoders."""

    uploads: int
    """Uploads at work at once; each reads so far ahead that this bounds memory."""


def plan(settings: Settings) -> ThreadPlan:
    """Threads for these settings.

    >>> found = plan(Settings(batch_size=16, decode_threads=2))
    >>> found.decode, found.read, found.queries, found.examples, found.uploads
    (2, 4, 34, 2, 4)
    """
    return ThreadPlan(
        # Torch has looked at the cores that this process may use, and at OMP_NUM_THREADS.
        forward=torch.get_num_threads(),
        decode=settings.decode_threads,
        read=settings.decode_threads + 2,
        queries=2 * settings.batch_size + settings.decode_threads,
        examples=settings.decode_threads,
        uploads=4,
    )


def one_for_faiss() -> None:
    """Called in a thread: what it asks of FAISS is done by it alone."""
    faiss.omp_set_num_threads(1)
