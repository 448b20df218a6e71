"""uvicorn's HTTP/1.1 protocol with limits, JSON errors, and answers in the order of requests.

What it adds to uvicorn's own class:

1. *Limits*: connections per process, size of a request's head, time for a request to arrive
   and for an answer to be read (:class:`~mlguard.serving.limits.ConnectionLimits`).
2. *A request that is no HTTP* is answered by a JSON error, after the answers of the requests
   before it on the same connection: written at once, it would be taken for one of theirs.
3. *An upgrade that is not offered* is passed over, and the connection closed after the answer:
   httptools reads nothing further once it has seen one.  It does not read the body either, so
   one that comes with a body is refused.
4. *A client that has said all it wants to say* (it closed its half of the connection) still
   gets the answers to what it asked.

A protocol that answers some routes itself derives from this one.  uvicorn's protocol classes
are private: the version is pinned, and what is used of them is tested.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeVar

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mlguard.serving.limits import ConnectionLimits

#: Requests that may wait on one connection for the answers of earlier ones.
_PIPELINED = 1_000


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    #: Replaced by :func:`with_limits`.
    limits = ConnectionLimits()

    # --- life of a connection ---

    # uvicorn narrows asyncio's argument in the same way.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or turn it away where there are too many."""
        super().connection_made(transport)
        #: When the request that is arriving began (a new connection: now); None between two.
        self.arriving_since: float | None = self.loop.time()
        self._head_bytes = 0
        self._in_head = True
        self._in_body = False
        self._unread = 0
        #: Bytes of a message since the last that were of its body: framing and trailers.
        self._framing = 0
        #: The request that the app works on, or worked on last.
        self._running: Any = None
        #: The error to be written when everybody before it was answered.
        self._last_words: bytes | None = None
        self._watch = self.loop.call_later(self.limits.request_timeout_s, self._look)
        if len(self.connections) > self.limits.max_connections:
            self.refuse(503, "Overloaded", "too many connections; try again soon")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._watch.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Close a connection on which something takes too long; look again later."""
        limit = self.limits.request_timeout_s
        now = self.loop.time()
        unread = self.transport.get_write_buffer_size()
        if self.transport.is_closing():
            # Closed by us, and the other side does not take what was left to write.
            self.transport.abort()
            return
        if unread and unread == self._unread:
            self.transport.abort()
            return
        self._unread = unread
        if self.arriving_since is not None and now - self.arriving_since >= limit:
            self.refuse(408, "Request timeout", f"the request did not arrive within {limit:g} s")
            return
        since = now if self.arriving_since is None else self.arriving_since
        self._watch = self.loop.call_later(max(since + limit - now, 0.01), self._look)

    # --- reading ---

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the connection is about to end."""
        if self._last_words is not None or self.transport.is_closing():
            return
        if self.arriving_since is None:
            self.arriving_since = self.loop.time()
        self._unset_keepalive_if_required()
        if self._in_head:
            # Counted from nothing again where another head begins in this piece.
            self._head_bytes += len(data)
        self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._last_words = self._last_words or b""
        except httptools.HttpParserError:
            # Refused already where one of our own callbacks has stopped the parser.
            self.refuse(400, "Bad request", "this is no HTTP/1.1 request")
        else:
            self._measure(len(data))

    def _measure(self, size: int) -> None:
        """Refuse a head that does not end, and framing or trailers without a body."""
        limit = self.limits.max_header_bytes
        if self._head_bytes > limit if self._in_head else self._framing > size + limit:
            self._too_large()

    # asyncio's returns whether to stay open; uvicorn's says that it never does.
    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what was asked before the client closed its half; returns whether to stay."""
        if self._nobody_waits() or self.scheme == "https":
            return False
        self._drop_unfinished()
        if self._last_words is None:
            self._last_words = b""
        return not self._nobody_waits()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head_bytes = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        """End the head of a request; hand it to the app."""
        self._in_head = False
        head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head > self.limits.max_header_bytes:
            self._too_large()
        elif self._ambiguous():
            self.refuse(400, "Bad request", "Host, or the length of the body, is not given once")
        elif len(self.pipeline) >= _PIPELINED:
            self.refuse(503, "Overloaded", "too many requests wait on this connection")
        elif self.parser.should_upgrade() and self._cannot_pass_over():
            self.refuse(400, "Bad request", "this server offers no other protocol to upgrade to")
        else:
            super().on_headers_complete()
            self._in_body = True
            if self.parser.should_upgrade():
                self.cycle.keep_alive = False
            return
        # Stops the parser: nothing that follows on this connection is read.
        raise _RefusedHead

    def _ambiguous(self) -> bool:
        """Whether two readers could disagree about whom this is for, or where its body ends."""
        hosts = lengths = codings = 0
        for name, _ in self.headers:
            hosts += name == b"host"
            lengths += name == b"content-length"
            codings += name == b"transfer-encoding"
        version = self.parser.get_http_version()
        if version == "1.0":
            return lengths > 1 or codings > 0 or hosts > 1
        return lengths + codings > 1 or hosts != 1 or version != "1.1"

    def _cannot_pass_over(self) -> bool:
        body = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        return body or self.parser.get_method() == b"CONNECT"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes behind the body is none."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._framing = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self.arriving_since = None
        self._framing = 0
        self._in_body = False
        super().on_message_complete()

    def _too_large(self) -> None:
        self.refuse(
            431,
            "Headers too large",
            f"request line and headers are larger than {self.limits.max_header_bytes} bytes",
        )

    # --- refusing ---

    def refuse(self, status: int, error: str, cause: str) -> None:
        """Answer the request that is arriving by an error, as the last one on this connection.

        Requests before it are answered first.
        """
        if self._last_words is not None or self.transport.is_closing():
            return
        self.arriving_since = None
        if self._in_body and self.cycle is not None and self.cycle.response_complete:
            # It was answered before its body went wrong; a second answer would be the next one's.
            self._last_words = b""
            self.transport.close()
            return
        body = json.dumps({"error": error, "cause": cause}, separators=(",", ":")).encode()
        retry = b"retry-after: 1\r\n" if status == 503 else b""  # HTTP's own
        self._last_words = b"".join(
            (
                STATUS_LINE[status],
                b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
                retry,
                b"connection: close\r\n\r\n",
                body,
            )
        )
        self._drop_unfinished()
        if self._nobody_waits():
            self._say_last_words()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is no HTTP."""
        self.refuse(400, "Bad request", msg)

    def _drop_unfinished(self) -> None:
        """Take back a request whose head was handed to the app and whose body went wrong."""
        if not self._in_body or self.cycle is None:
            return
        if self.pipeline:
            self.pipeline.popleft()
        if self.cycle.response_started:
            self._last_words = b""  # half an answer is out; nothing may come behind it
        # The app hears that its caller has gone, and what it still says goes nowhere.
        self.cycle.disconnected = True
        self.cycle.response_complete = True
        self.cycle.message_event.set()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Let the app begin with a request."""
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _nobody_waits(self) -> bool:
        return not self.pipeline and (self._running is None or self._running.response_complete)

    def _say_last_words(self) -> None:
        self.transport.write(self._last_words or b"")
        self.transport.close()

    def on_response_complete(self) -> None:
        """Go on with the next request of the connection, or end it."""
        super().on_response_complete()
        if self._last_words is not None and self._nobody_waits():
            self._say_last_words()


class _RefusedHead(httptools.HttpParserError):
    """The head of a request was refused."""


AnyProtocol = TypeVar("AnyProtocol", bound=GuardedProtocol)


def with_limits(protocol: type[AnyProtocol], limits: ConnectionLimits) -> type[AnyProtocol]:
    """Return the protocol class with other limits, as uvicorn takes it."""
    members: dict[str, Any] = {"limits": limits}
    return type(protocol.__name__, (protocol,), members)
