"""uvicorn as we run it: on a bound socket, quiet, its signals left to us.

Of uvicorn's server two methods are overridden, ``startup`` and ``capture_signals``: its own
handling ends the process *by the signal* after an orderly shutdown, and an orderly end is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import uvicorn

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

#: Longest wait at the end for requests that were admitted, in seconds.
GRACE_S = 30


class QuietServer(uvicorn.Server):
    """A uvicorn server for one app.

    Parameters
    ----------
    app : FastAPI
        What answers.
    on_started : callable
        Called once when it accepts requests.
    lifespan : {"on", "off"}
        Whether the app has one.
    """

    def __init__(
        self, app: FastAPI, *, on_started: Callable[[], None], lifespan: Literal["on", "off"]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                ws="none",
                lifespan=lifespan,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept, and tell."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_started()

    def stop_listening(self) -> None:
        """Accept no further connection; those that are open go on."""
        for listener in self.servers if self.started else ():
            listener.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
