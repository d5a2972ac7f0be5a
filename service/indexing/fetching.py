"""Pictures by URL for a job: begun before their turn, a few at a time from one host."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from urllib.parse import urlsplit

import tenacity

from service.fetch import Fetcher, FetchError
from service.indexing.source import Entry, SourceError, given, never

FETCHES = 8
"""Pictures fetched at once, and held until they are decoded."""

PATIENCE_S = 0.25
"""How long to wait for a picture before others may be seen to."""

_LONGEST_PAUSE_S = 60.0


@dataclass
class _Host:
    """What is known of one host; changed under the lock of `Hosts` only."""

    open: int = 0
    next_at: float = 0.0


@dataclass
class Hosts:
    """Fetches with manners: per host at most `at_once` together and `per_second` begun.

    What may pass is tried `attempts` times, after pauses that double from `pause_s` at random; a
    host that asks for a pause by Retry-After gets it for all of its pictures, up to a minute.
    `check` is called while anything is waited for, and may raise to end it.
    """

    fetcher: Fetcher
    check: Callable[[], None] = never
    at_once: int = 4
    per_second: float = 10.0
    attempts: int = 5
    pause_s: float = 1.0
    _hosts: dict[str, _Host] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fetch(self, url: str) -> bytes:
        """The body of the answer. Raises FetchError, which says how often it was tried."""
        once = replace(self.fetcher, attempts=1)
        host = urlsplit(url).netloc.rpartition("@")[2].lower()
        trying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_random_exponential(multiplier=self.pause_s, max=_LONGEST_PAUSE_S),
            retry=tenacity.retry_if_exception(_is_transient),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return trying(self._politely, host, once, url)
        except FetchError as error:
            if error.transient:
                tried = f"{error.detail} (tried {self.attempts} times)"
                raise FetchError(error.code, tried, transient=True) from error
            raise

    def _politely(self, name: str, fetcher: Fetcher, url: str) -> bytes:
        while (wait := self._begin(name)) > 0:
            self._sleep(wait)
        try:
            return fetcher.fetch(url)
        except FetchError as error:
            if error.retry_after is not None:
                pause = min(error.retry_after, _LONGEST_PAUSE_S)
                with self._lock:
                    host = self._hosts[name]
                    host.next_at = max(host.next_at, time.monotonic() + pause)
            raise
        finally:
            with self._lock:
                self._hosts[name].open -= 1

    def _begin(self, name: str) -> float:
        """Take a place at a host; where there is none, in how many seconds to ask again."""
        with self._lock:
            host, now = self._hosts.setdefault(name, _Host()), time.monotonic()
            if host.next_at > now:
                return host.next_at - now
            if host.open >= self.at_once:
                return 0.05
            host.open += 1
            host.next_at = now + 1 / self.per_second
            return 0.0

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, PATIENCE_S))
        self.check()


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, FetchError) and error.transient


def fetched_ahead(
    entries: Iterable[Entry], check: Callable[[], None] = never
) -> Generator[Entry | None, None, None]:
    """The same entries in their order, those by URL fetched; None while the next is on its way.

    Threads of their own fetch, so that no decoder waits for a host. A fetch that is under way when
    the iterator is closed ends by itself, and holds up nobody.
    """
    waiting: deque[tuple[Entry, Future[bytes] | None]] = deque()
    left = iter(entries)
    with _Threads() as threads:
        exhausted = False
        while True:
            while not exhausted and len(waiting) < FETCHES:
                entry = next(left, None)
                if entry is None:
                    exhausted = True
                    break
                waiting.append((entry, threads.submit(entry.read) if entry.fetched else None))
                if not entry.fetched:
                    break
            if not waiting:
                return
            entry, fetching = waiting[0]
            if fetching is not None:
                check()
                wait([fetching], PATIENCE_S)
                if not fetching.done():
                    yield None
                    continue
                try:
                    content: bytes | SourceError = fetching.result()
                except SourceError as error:
                    content = error
                held = 0 if isinstance(content, SourceError) else len(content)
                entry = replace(entry, read=given(content), held=held, fetched=False)
            waiting.popleft()
            yield entry


class _Threads:
    """Threads that no interpreter waits for when it ends, begun when there is work for them."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Callable[[], bytes], Future[bytes]] | None] = SimpleQueue()
        self._begun = 0

    def submit(self, call: Callable[[], bytes]) -> Future[bytes]:
        if self._begun < FETCHES:
            self._begun += 1
            threading.Thread(target=self._run, name="fetch", daemon=True).start()
        future: Future[bytes] = Future()
        self._work.put((call, future))
        return future

    def _run(self) -> None:
        while (task := self._work.get()) is not None:
            call, future = task
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                future.set_exception(error)

    def __enter__(self) -> "_Threads":
        return self

    def __exit__(self, *_: object) -> None:
        while not self._work.empty():
            self._work.get()
        for _thread in range(self._begun):
            self._work.put(None)
