"""The networks that are loaded: found again while in use, given up when others were used since."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from models import Extractor


class LoadedNetworks:
    """At most so many extractors; the one not used for longest is given up first.

    Loading one holds up only those who ask for that one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, Future[Extractor]] = OrderedDict()
        self._lock = threading.Lock()

    def loaded(self) -> list[Extractor]:
        """Those that are ready."""
        with self._lock:
            kept = list(self._kept.values())
        return [one.result() for one in kept if one.done() and not one.exception()]

    def get(self, key: str, load: Callable[[], Extractor]) -> Extractor:
        """The extractor of that key, loaded by the first who asks; raises what `load` raises."""
        with self._lock:
            found = self._kept.get(key)
            future = found or Future()
            self._kept[key] = future
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        if found is None:
            try:
                future.set_result(load())
            except BaseException as error:  # noqa: BLE001 - raised again by result()
                with self._lock:
                    self._kept.pop(key, None)
                future.set_exception(error)
        return future.result()
