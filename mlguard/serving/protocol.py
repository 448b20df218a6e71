"""The predict route, answered where the bytes come in.

``POST /{app}/predict`` passes through no framework here: the parser's callbacks collect the
body, the engine answers it, and the answer is one write.  Everything else goes on to FastAPI,
which has the same route as an ordinary one, and whatever is unusual about a predict request
(another method, an upgrade, ``Expect``, a query string, a head that two readers could read
differently) goes that way too.  So this file holds no second opinion on HTTP or on errors.

Rules
-----
1. *Order.*  Answers leave in the order of the requests of their connection
   (:mod:`mlguard.serving.exchanges`).
2. *The same door.*  Keys, rates and names are asked where the ordinary route asks them.
3. *Nothing piles up.*  No connection is read further while 64 of its requests wait, or while
   its answers are not taken.
4. *Nothing admitted is lost.*  A connection that is asked to end is closed after the answers
   to what has begun to arrive.
5. *What a user adds holds.*  Where middleware, a dependency or another route would see the
   request, the quick path steps aside, and says so (:class:`QuickPath`).

A request that comes whole, with a head that was read before, is not parsed again
(:mod:`mlguard.serving.known_heads`); everything else about it is as for any other.

uvicorn's protocol classes are private: its version is pinned, and a test names every part used.
"""

from __future__ import annotations

import time
from typing import Any

import httptools

from mlguard.errors import MlguardError
from mlguard.serving.exchanges import Exchange, OrderedProtocol
from mlguard.serving.known_heads import Head
from mlguard.serving.replies import TooLargeError, reply_to

#: Requests of one connection that may wait before it is read no further.
_AT_ONCE = 64
#: Headers that make a predict request one for FastAPI.
_UNUSUAL = frozenset({b"expect", b"upgrade", b"http2-settings"})


class PredictProtocol(OrderedProtocol):
    """One connection that answers predict requests itself."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._declared = 0
        #: The piece that the request which is arriving began with.
        self._piece = b""
        #: The head of the last request that was known by its head: the next one is like it.
        self._head: Head | None = None

    # --- a request comes in ---

    def data_received(self, data: bytes) -> None:
        """Take a request whose head is known as it is; parse everything else."""
        if self.arriving_since is None:
            head = self._head
            if head is None or len(data) != head.whole or not data.startswith(head.text):
                head = self._head = self.quick.heads.find(data)
            if head is not None and self._is_between():
                exchange = Exchange(self, head.engine)
                self._exchanges.append(exchange)
                if self._may_enter(exchange, head.headers, head.length):
                    self._ask(exchange, data[-head.length :])
                return
            self._piece = data
        super().data_received(data)

    def _is_between(self) -> bool:
        """Whether nothing is left of the requests before that a new one would have to heed."""
        return (
            not self._closing
            and self._last_words is None
            and self.timeout_keep_alive_task is None
            and self._held is None
            and not self.pipeline
            and (self.cycle is None or self.cycle.response_complete)
            and not self.transport.is_closing()
        )

    def on_message_begin(self) -> None:
        """Begin a request; what FastAPI would need is made when it is known to need it."""
        self.url = b""
        self.headers = []
        self._head_bytes = 0
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes behind the body is none."""
        if self._in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take a predict request, or hand the request on."""
        if self._closing:
            raise _LastOneError  # nothing behind the last request is read
        engine = self.quick.engine(self.url)
        if engine is None or not self._is_first() or not self._is_plain():
            self._hand_on()
            return
        self._in_head = False
        exchange = Exchange(self, engine)
        exchange.keep_alive = self.parser.should_keep_alive()
        self._arriving = exchange
        self._exchanges.append(exchange)
        if not exchange.keep_alive:
            self._closing = True
        self._may_enter(exchange, self.headers, self._declared)

    def _may_enter(
        self, exchange: Exchange, headers: list[tuple[bytes, bytes]], declared: int
    ) -> bool:
        """Ask at the door; who may not come in is answered."""
        state = self.quick.state
        keys = exchange.engine.keys
        if not state.door.open_to_all(keys):
            client = self.client[0] if self.client else ""
            try:
                exchange.caller = state.door.enter(keys, headers, client, time.monotonic())
            except MlguardError as error:
                self._refused(exchange, error)
                return False
        if declared > state.max_body:
            self._too_long(exchange)
            return False
        return True

    def _is_first(self) -> bool:
        """Whether no request before this one is FastAPI's to answer."""
        return (
            self._held is None
            and not self.pipeline
            and (self.cycle is None or self.cycle.response_complete)
        )

    def _is_plain(self) -> bool:
        """Whether the head is a POST's, and nothing about it needs more than a look."""
        hosts = lengths = codings = hops = 0
        size = len(self.url)
        declared = b"0"
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"content-length":
                lengths += 1
                declared = value
            elif name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                codings += 1
            elif name in _UNUSUAL:
                return False
            elif name == b"connection":
                hops += 1
        self._declared = int(declared)
        return (
            self.parser.get_method() == b"POST"
            and hosts == 1
            and lengths + codings <= 1
            and size <= self.limits.max_header_bytes
            # HTTP/1.0 knows no chunks; without a word about it, only 1.1 is kept alive.
            and (
                self.parser.get_http_version() == "1.1"
                if codings or hops
                else self.parser.should_keep_alive()
            )
        )

    def _hand_on(self) -> None:
        """Let FastAPI answer the request whose head has come."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers += headers
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Collect a predict request's body."""
        self._framing = 0
        exchange = self._arriving
        if exchange is None:
            super().on_body(body)
        elif exchange.out is None:
            if not exchange.body:
                exchange.body = body
            else:
                if type(exchange.body) is bytes:
                    exchange.body = bytearray(exchange.body)
                exchange.body += body
            if len(exchange.body) > self.quick.state.max_body:
                self._too_long(exchange)

    def on_message_complete(self) -> None:
        """Let the engine answer a predict request that is whole."""
        exchange = self._arriving
        if exchange is None:
            super().on_message_complete()
            return
        self._arriving = None
        self.arriving_since = None
        self._framing = 0
        if exchange.out is not None:
            self.flush()
            return
        if exchange.keep_alive:
            self.quick.heads.learn(self._piece, exchange.engine, self.headers, self._declared)
        self._piece = b""
        body = bytes(exchange.body)  # the same object where it came in one piece
        exchange.body = b""
        self._ask(exchange, body)

    def _ask(self, exchange: Exchange, body: bytes) -> None:
        """Let the engine answer."""
        try:
            exchange.waiting = exchange.engine.submit(body, exchange, caller=exchange.caller)
        except MlguardError as error:
            self._refused(exchange, error)
        if len(self._exchanges) >= _AT_ONCE:
            self.flow.pause_reading()

    # --- a request is refused ---

    def _refused(self, exchange: Exchange, error: MlguardError) -> None:
        reply = reply_to(error)
        exchange.engine.refused(reply.status_code)
        exchange.out = self.quick.error(reply, self, exchange)
        exchange.body = b""
        self.flush()

    def _too_long(self, exchange: Exchange) -> None:
        limit = self.quick.state.max_body
        self._refused(exchange, TooLargeError(f"the body is larger than {limit} bytes"))


class _LastOneError(httptools.HttpParserError):
    """A request came behind the last one of its connection."""
