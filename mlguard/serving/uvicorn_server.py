"""uvicorn as we run it: on a bound socket, quiet, its signals left to us.

Of uvicorn's server two methods are overridden, ``startup`` and ``capture_signals``: its own
handling ends the process *by the signal* after an orderly shutdown, and an orderly end is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import uvicorn

from mlguard.serving.connections import with_limits
from mlguard.serving.limits import ConnectionLimits
from mlguard.serving.protocol import PredictProtocol
from mlguard.serving.quick_path import QuickPath

if TYPE_CHECKING:
    import socket
    from pathlib import Path

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
    limits : ConnectionLimits, optional
        What a connection may cost.
    tls : tuple of Path, optional
        Files with the certificate chain and the private key; None: plain HTTP.
    """

    def __init__(
        self,
        app: FastAPI,
        *,
        on_started: Callable[[], None],
        lifespan: Literal["on", "off"],
        limits: ConnectionLimits | None = None,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        certificate, key = (None, None) if tls is None else map(str, tls)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                ws="none",
                http=with_limits(PredictProtocol, limits or ConnectionLimits()),
                lifespan=lifespan,
                # Whom a proxy speaks for is the proxy's word; rates and reading go by addresses.
                proxy_headers=False,
                ssl_certfile=certificate,
                ssl_keyfile=key,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept, and tell."""
        QuickPath.of(self.config)  # says now, not at the first request, which way they take
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
