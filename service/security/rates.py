"""How often a key may call, or an address where there are no keys: a sliding window per scope."""

import ipaddress
import math
import time

import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.problems import Problem
from service.security.callers import Caller, is_loopback
from service.security.operations import Operation
from service.settings import Settings


class Rates:
    """Two limits, for reading and for writing; each process counts for itself."""

    def __init__(self, settings: Settings) -> None:
        self._limits = {
            writes: limits.parse(rate) if rate else None
            for writes, rate in ((False, settings.rate_read), (True, settings.rate_write))
        }
        self._spares_nameless = is_loopback(settings.host)
        self._counted = MemoryStorage()
        self._windows = SlidingWindowCounterRateLimiter(self._counted)

    def take(self, caller: Caller, operation: Operation, cost: int = 1) -> None:
        """Count a request, or the pictures in one. Raises Problem `rate-limited`.

        What costs more than a whole window empties it: it could otherwise never be done. Callers
        without a key are spared on the loopback, unless they should have one.
        """
        limit = self._limits[operation.writes]
        if limit is None or (caller.key is None and caller.scope and self._spares_nameless):
            return
        cost = min(cost, limit.amount)
        who = caller.key or group(caller.address)
        what = "write" if operation.writes else "read"
        if cost < 1 or self._windows.hit(limit, what, who, cost=cost):
            return
        wait = self._wait(limit, limit.key_for(what, who), cost)
        raise Problem(
            "rate-limited",
            f"more than {limit} of this caller: wait {wait} s",
            {"Retry-After": str(wait)},
        )

    def _wait(self, limit: limits.RateLimitItem, name: str, cost: int) -> int:
        """Whole seconds until `cost` fits.

        The window holds what was counted in this period, and of the one before as large a share as
        is still within a period from now; so it empties evenly.
        """
        period = limit.get_expiry()
        before, _, here, _ = self._counted.get_sliding_window(name, period)
        left = period - time.time() % period
        fits = limit.amount + 1 - cost
        if here < fits:
            wait = left - period * (fits - here) / max(before, 1)
        else:
            wait = left + period * (1 - fits / here)
        return max(1, math.floor(wait) + 1)


def group(address: str) -> str:
    """What is counted together: an IPv6 subscriber has a whole /64 to call from.

    >>> group("192.0.2.7"), group("2001:db8:1:2:3:4:5:6")
    ('192.0.2.7', '2001:db8:1:2::/64')
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    return str(ipaddress.ip_network((ip, 64), strict=False))
