"""The predict route, answered where the bytes come in.

``POST /{app}/predict`` passes through no framework here: the parser's callbacks collect the
body, the engine answers it, and the answer is one write.  Everything else goes on to FastAPI,
which has the same route as an ordinary one, and whatever is unusual about a predict request
(another method, an upgrade, ``Expect``, a query string, a head that two readers could read
differently) goes that way too.  So this file holds no second opinion on HTTP or on errors.

Rules
-----
1. *Order.*  Answers leave in the order of the requests of their connection.  A request for
   FastAPI waits for the quick ones before it; while one of FastAPI's is unanswered, those
   behind it go to FastAPI as well.
2. *The same door.*  Keys, rates and names are asked where the ordinary route asks them.
3. *Nothing piles up.*  No connection is read further while 64 of its requests wait, or while
   its answers are not taken.
4. *Nothing admitted is lost.*  A connection that is asked to end is closed after the answers
   to what has begun to arrive.
5. *What a user adds holds.*  Where middleware, a dependency or another route would see the
   request, the quick path steps aside, and says so (:class:`QuickPath`).

uvicorn's protocol classes are private: its version is pinned, and a test names every part used.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from mlguard.errors import MlguardError
from mlguard.serving.connections import GuardedProtocol
from mlguard.serving.quick_path import QuickPath
from mlguard.serving.replies import TooLargeError, reply_to

if TYPE_CHECKING:
    import asyncio

    from mlguard.serving.admission import Reply, Waiting
    from mlguard.serving.engine import AppEngine

#: Requests of one connection that may wait before it is read no further.
_AT_ONCE = 64
#: Headers that make a predict request one for FastAPI.
_UNUSUAL = frozenset({b"expect", b"upgrade", b"http2-settings"})


class Exchange:
    """One predict request of a connection, and its answer once it is there."""

    __slots__ = ("body", "caller", "connection", "engine", "keep_alive", "out", "waiting")

    def __init__(self, connection: PredictProtocol, engine: AppEngine) -> None:
        self.connection = connection
        self.engine = engine
        self.keep_alive = True
        self.caller: str | None = None
        self.body: bytes | bytearray = b""
        self.waiting: Waiting | None = None
        self.out: bytes | None = None

    def __call__(self, reply: Reply) -> None:
        """Take the reply."""
        connection = self.connection
        self.out = connection.quick.answer(reply, connection, self)
        connection.flush()


class PredictProtocol(GuardedProtocol):
    """One connection that answers predict requests itself."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.quick = QuickPath.of(self.config)
        #: Predict requests without an answer on the wire, oldest first.
        self._exchanges: deque[Exchange] = deque()
        #: The one whose body is arriving; answered already where that body is of no use.
        self._arriving: Exchange | None = None
        #: A request for FastAPI that waits for the exchanges before it.
        self._held: tuple[Any, Any] | None = None
        self._closing = False
        self._declared = 0
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    # --- a request comes in ---

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
        state = self.quick.state
        if not state.door.open_to_all(engine.keys):
            client = self.client[0] if self.client else ""
            try:
                exchange.caller = state.door.enter(
                    engine.keys, self.headers, client, time.monotonic()
                )
            except MlguardError as error:
                self._refused(exchange, error)
                return
        if self._declared > state.max_body:
            self._too_long(exchange)

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
        body = bytes(exchange.body)  # the same object where it came in one piece
        exchange.body = b""
        try:
            exchange.waiting = exchange.engine.submit(body, exchange, caller=exchange.caller)
        except MlguardError as error:
            self._refused(exchange, error)
        if len(self._exchanges) >= _AT_ONCE:
            self.flow.pause_reading()

    # --- an answer goes out ---

    def _refused(self, exchange: Exchange, error: MlguardError) -> None:
        reply = reply_to(error)
        exchange.engine.refused(reply.status_code)
        exchange.out = self.quick.error(reply, self, exchange)
        exchange.body = b""
        self.flush()

    def _too_long(self, exchange: Exchange) -> None:
        limit = self.quick.state.max_body
        self._refused(exchange, TooLargeError(f"the body is larger than {limit} bytes"))

    def flush(self) -> None:
        """Write the answers whose turn has come, and see what comes after them."""
        exchanges = self._exchanges
        while exchanges and exchanges[0].out is not None:
            done = exchanges.popleft()
            self.transport.write(done.out)  # type: ignore[arg-type]  # checked above
            self.server_state.total_requests += 1
            if not done.keep_alive:
                self._closing = True
                # Closed on while it still sends, a client may never see its answer.
                if done is not self._arriving:
                    self._end()
                return
        if exchanges:
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._idle)
        if self._last_words is not None or self._held is not None or self._closing:
            self._go_on()
        elif not self.flow.write_paused:
            self.flow.resume_reading()

    def _go_on(self) -> None:
        """Do what had to wait for the answers before it."""
        if self._held is not None:
            held, self._held = self._held, None
            super()._start_asgi_task(*held)
        elif self._last_words is not None:
            if self._nobody_waits():
                self._say_last_words()
        elif self._arriving is None:
            self._end()

    def _end(self) -> None:
        """Close after the answer that said so; requests behind it were never taken."""
        self._forget()
        self.transport.close()

    def _forget(self) -> None:
        for exchange in self._exchanges:
            if exchange.waiting is not None:
                exchange.waiting.abandon()
        self._exchanges.clear()
        self._arriving = None
        self._held = None

    # --- between the two ways ---

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Let FastAPI begin, once the exchanges before it are answered."""
        if self._exchanges:
            self._held = (cycle, app)
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Remember since when the connection is idle."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _nobody_waits(self) -> bool:
        return not self._exchanges and self._held is None and super()._nobody_waits()

    def _drop_unfinished(self) -> None:
        exchange = self._arriving
        if exchange is None:
            super()._drop_unfinished()
            return
        self._arriving = None
        if exchange.out is not None:
            self._last_words = b""  # answered before its body went wrong
        elif exchange in self._exchanges:
            self._exchanges.remove(exchange)

    # --- life of a connection ---

    def connection_lost(self, exc: Exception | None) -> None:
        """Take back what nobody waits for any more."""
        self._forget()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection after the answers to what has begun to arrive."""
        if self._exchanges or self._arriving is not None:
            self._closing = True
            if self._exchanges:
                self._exchanges[-1].keep_alive = False
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """Read no further while answers are not taken."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        super().resume_writing()
        self.flow.resume_reading()

    def _idle(self) -> None:
        """Close a connection that was idle for long; one timer, not one for each answer."""
        self._idle_timer = None
        if self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        unread = self.transport.get_write_buffer_size()  # for how long is :meth:`_look`'s affair
        if unread or self.arriving_since is not None or not self._nobody_waits():
            left = self.timeout_keep_alive
        if left <= 0:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(left, self._idle)


class _LastOneError(httptools.HttpParserError):
    """A request came behind the last one of its connection."""
