"""Traces: off, and then without any cost, unless `POOL5_TRACES` says where they go.

A request is a span with its stages inside: `decode`, `forward` (of it `queue` in the batcher and
`pass` in the network, shared by a batch), `search`. A `batch` of pictures that is taken in has a
`decode` for each and a `commit`; those of a job are traces of their own, with its id.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from service.problems import Problem
from service.settings import Settings

if TYPE_CHECKING:
    from service.otlp import Request, Tracer

Result = TypeVar("Result")

Trail = tuple[Any, int]
"""What a picture is a part of, and when it began to wait for the network, in ns of the epoch."""

_NOTHING = nullcontext()
_tracer: "Tracer | None" = None


def configure(settings: Settings) -> None:
    """Begin to trace where the settings ask for it, as `logs.configure` begins to log.

    Raises Problem: `traces-missing` (the extra is not installed), `traces-offline`.
    """
    global _tracer  # noqa: PLW0603 - one process, one stream of traces, like its log
    if settings.traces is None:
        return
    try:
        from service import otlp
    except ImportError as error:
        raise Problem(
            "traces-missing", "POOL5_TRACES is set: install what it needs, pool5[tracing]"
        ) from error
    _tracer = otlp.Tracer(otlp.endpoint(settings.traces, settings.offline))


def close() -> None:
    """Send what is left, and trace no more."""
    global _tracer
    ending, _tracer = _tracer, None
    if ending is not None:
        ending.close()


def span(name: str, **attributes: Any) -> AbstractContextManager[None]:
    """What happens inside, as a part of what is under way in this thread or task."""
    return _NOTHING if _tracer is None else _tracer.span(name, attributes)


def request(scope: Any) -> "AbstractContextManager[Request | None]":
    """A request of ASGI, as a part of its client's trace where it has one; None: not traced."""
    return _NOTHING if _tracer is None else _tracer.request(scope)


def carried(work: Callable[..., Result]) -> Callable[..., Result]:
    """The same work, as a part of what is under way here, for another thread."""
    return work if _tracer is None else _tracer.carried(work)


def trail() -> Trail | None:
    """What is under way here, and when it began to wait for the network."""
    return None if _tracer is None else _tracer.trail()


def passed(trails: Sequence[Trail | None], seconds: float) -> None:
    """A forward pass that ended just now had these pictures in it."""
    if _tracer is not None:
        _tracer.passed(trails, seconds)
