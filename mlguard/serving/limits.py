"""How much one caller may ask for, and how long a connection may take: pure, clocks passed in.

``Door`` is what every path to an answer goes through, whoever parses the request: it knows the
names the server answers to, the app's keys and the rate of each caller, and needs nothing but
the request's headers, the client's address and the time.

A caller is its key where the app has keys, else its address.  Its rate is a token bucket: a
second's worth may come at once, and what was used up comes back evenly.  A refused request
costs no token.  Wrong keys are charged to the address they come from, so that guessing is as
slow as asking.  Each front-end process counts for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlguard.config import ServerTable
from mlguard.errors import MlguardError, RefusedError
from mlguard.serving.access import AppKeys, UnauthorisedError

#: Callers remembered; the one that was silent for longest is forgotten first.
_CALLERS = 10_000

Headers = Iterable[tuple[bytes, bytes]]


class TooManyRequestsError(MlguardError):
    """A caller asks faster than it may; trying again later is safe."""

    http_status = 429
    code = "too_many_requests"
    retryable = True


class MisdirectedError(RefusedError):
    """The request was meant for a name that is not this server's."""

    http_status = 421
    code = "misdirected"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may cost.

    Attributes
    ----------
    max_connections : int
        Connections that one front-end process keeps open.
    max_header_bytes : int
        Request line and headers together.
    request_timeout_s : float
        Longest that a request may take to arrive, and that a client may not read its answer.
    """

    max_connections: int = 10_000
    max_header_bytes: int = 32 * 1024
    request_timeout_s: float = 30.0

    @classmethod
    def of(cls, server: ServerTable) -> ConnectionLimits:
        """Return what ``[server]`` of mlguard.toml says."""
        return cls(server.max_connections, server.max_header_bytes, server.request_timeout_s)


class RateLimiter:
    """A token bucket for each caller.

    Parameters
    ----------
    per_second : float
        Requests a second that one caller may send in the long run; 0: any number.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._burst = max(1.0, per_second)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, now: float) -> float:
        """Take a token; returns 0, or the seconds until there is one.

        Parameters
        ----------
        caller : str
            Whose bucket.
        now : float
            Seconds on any clock that does not go back.
        """
        if not self.per_second:
            return 0.0
        tokens, at = self._buckets.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - at) * self.per_second)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self.per_second
        self._buckets[caller] = (tokens if wait else tokens - 1.0, now)
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        return wait


class Door:
    """Who may come in, and how often.

    Parameters
    ----------
    per_second : float, default 0
        See :class:`RateLimiter`.
    names : sequence of str, default ()
        Host names that requests may be sent to, without port; empty: any.
    """

    def __init__(self, per_second: float = 0.0, names: Sequence[str] = ()) -> None:
        self._rates = RateLimiter(per_second)
        self._names = frozenset(name.lower().encode() for name in names)

    @classmethod
    def of(cls, server: ServerTable) -> Door:
        """Return the door that ``[server]`` of mlguard.toml describes."""
        return cls(server.rate_limit_per_s, server.hosts)

    def open_to_all(self, keys: AppKeys) -> bool:
        """Whether :meth:`enter` would let everybody in, so that headers need no look."""
        return not (keys.needed or self._rates.per_second or self._names)

    def enter(self, keys: AppKeys, headers: Headers, client: str, now: float) -> str | None:
        """Let a predict or update request in; returns the name of its key, None without keys.

        Parameters
        ----------
        keys : AppKeys
            Of the app that is asked.
        headers : iterable of (bytes, bytes)
            Names in lower case, and values, as they came.
        client : str
            The caller's address.
        now : float
            Seconds on any clock that does not go back.

        Raises
        ------
        MisdirectedError
            If it was sent to a name that is not the server's.
        UnauthorisedError
            If the app has keys and the request shows none of them.
        TooManyRequestsError
            If the caller asks faster than it may.
        """
        if self.open_to_all(keys):
            return None
        authorization = host = b""
        for name, value in headers:
            if name == b"authorization":
                authorization = value
            elif name == b"host":
                host = value
        self.check_host(host)
        try:
            caller = keys.shown(authorization)
        except UnauthorisedError:
            self._pay(client, now)
            raise
        self._pay(client if caller is None else f"key {caller}", now)
        return caller

    def check_host(self, host: bytes) -> None:
        """Raise unless a Host header names this server."""
        if self._names and _without_port(host) not in self._names:
            raise MisdirectedError(
                "this server does not answer to that Host",
                hint="mlguard.toml says to which, in [server] hosts",
            )

    def _pay(self, caller: str, now: float) -> None:
        wait = self._rates.take(caller, now)
        if wait:
            raise TooManyRequestsError(
                f"this caller may send {self._rates.per_second:g} requests a second",
                retry_after_s=wait,
            )


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.strip().lower().rpartition(b":")
    # "[::1]" ends in a bracket: what follows its last colon is no port.
    return name if colon and port.isdigit() else host.strip().lower()
