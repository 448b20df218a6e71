"""The answers of one connection, in the order of its requests.

A request that is answered here is an *exchange*; others are FastAPI's, and uvicorn's own class
sees to those.  A request for FastAPI waits for the exchanges before it; while one of FastAPI's
is unanswered, those behind it go to FastAPI as well.  So an answer is never taken for another
one's, and a connection that is asked to end ends after the answers to what has begun to arrive.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from mlguard.serving.connections import GuardedProtocol
from mlguard.serving.quick_path import QuickPath

if TYPE_CHECKING:
    import asyncio

    from mlguard.serving.admission import Origin, Waiting
    from mlguard.serving.engine import AppEngine


class Exchange(msgspec.Struct, eq=False):
    """One predict request of a connection, and its answer once it is there."""

    connection: Any
    engine: AppEngine
    keep_alive: bool = True
    caller: str | None = None
    body: bytes | bytearray = b""
    waiting: Waiting | None = None
    out: bytes | None = None

    def __call__(self, body: bytes, origin: Origin) -> None:
        """Take the reply."""
        connection = self.connection
        self.out = connection.quick.answer(body, origin, connection, self)
        connection.flush()


class OrderedProtocol(GuardedProtocol):
    """One connection, some of whose requests are answered here."""

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
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    # --- an answer goes out ---

    def flush(self) -> None:
        """Write the answers whose turn has come, and see what comes after them."""
        exchanges = self._exchanges
        while exchanges and exchanges[0].out is not None:
            done = exchanges.popleft()
            self.transport.write(done.out)  # type: ignore[arg-type]  # checked above
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
        elif self.flow.read_paused and not self.flow.write_paused:
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
