"""When the predict route may be answered ahead of the framework, and what its answers look like.

The quick path is taken only where nothing could tell the difference.  What a user adds to the
app, middleware, a dependency, a route that comes before ours, is code that wants to see requests;
so is an access log.  Then every request takes the ordinary route.  Which one it is, and why, is
said once at the start and stands in ``/readyz``.
"""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.routing import Match
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from mlguard.serving.known_heads import KnownHeads

if TYPE_CHECKING:
    from fastapi.responses import Response
    from uvicorn.config import Config

    from mlguard.serving.admission import Origin
    from mlguard.serving.engine import AppEngine
    from mlguard.serving.exchanges import Exchange, OrderedProtocol
    from mlguard.serving.predict_app import ServerState

logger = logging.getLogger("mlguard.serving")

#: Middleware of ours, which the quick path does the work of.
_OWN = "mlguard.serving.replies"
_TAILS = (b"/predict", b"/predict/")


class QuickPath:
    """What all connections of one server share.

    Parameters
    ----------
    app : Any
        The ASGI app.
    root_path : str, default ""
        Where a proxy has mounted it.
    """

    def __init__(self, app: Any, root_path: str = "") -> None:
        #: Why the quick path is not taken; None: it is.
        self.aside = why_aside(app, root_path)
        state: Any = getattr(getattr(app, "state", None), "mlguard", None)
        self.state: ServerState = state
        self._engines: dict[bytes, AppEngine] = {}
        self._heads: dict[Origin, bytes] = {}
        self.heads = KnownHeads()
        self._of: list[tuple[bytes, bytes]] | None = None
        if state is not None:
            state.predict_path = "protocol" if self.aside is None else f"route: {self.aside}"
        if self.aside is not None:
            logger.warning("predictions take FastAPI's route, which is slower: %s", self.aside)

    @classmethod
    def of(cls, config: Config) -> QuickPath:
        """Return the path of a uvicorn server."""
        known = _PATHS.get(config)
        if known is None:
            known = _PATHS[config] = cls(config.loaded_app, config.root_path)
        return known

    def engine(self, url: bytes) -> AppEngine | None:
        """Return the app that a URL asks for a prediction; None: the URL is for FastAPI."""
        known = self._engines.get(url)
        if known is not None or self.aside is not None or not url.endswith(_TAILS):
            return known
        name = url[1:].rstrip(b"/").removesuffix(b"/predict")
        # An exact name: whatever is encoded or relative in a URL is FastAPI's to read.
        if url not in [b"/" + name + tail for tail in _TAILS]:
            return None
        found = self.state.engines.get(name.decode("latin-1"))
        if found is not None:
            self._engines[url] = found
        return found

    def answer(
        self, body: bytes, origin: Origin, connection: OrderedProtocol, exchange: Exchange
    ) -> bytes:
        """Return an answer as it goes over the wire."""
        defaults = connection.server_state.default_headers
        if defaults is not self._of:  # uvicorn makes them anew each second, for the date
            self._of = defaults
            self._heads.clear()
        head = self._heads.get(origin)
        if head is None:
            head = self._heads[origin] = _head(
                200,
                [
                    *defaults,
                    (b"content-type", b"application/json"),
                    (b"x-mlguard-version", origin.version.encode("latin-1", "replace")),
                    (b"x-mlguard-generation", b"%d" % origin.generation),
                    (b"x-content-type-options", b"nosniff"),
                ],
            )
        if exchange.keep_alive and not self.state.draining:
            return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        exchange.keep_alive = False
        return b"%bconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body)

    def error(self, reply: Response, connection: OrderedProtocol, exchange: Exchange) -> bytes:
        """Return FastAPI's answer to an error as it goes over the wire."""
        headers = [*connection.server_state.default_headers, *reply.raw_headers]
        headers.append((b"x-content-type-options", b"nosniff"))
        if self.state.draining:
            exchange.keep_alive = False
        if not exchange.keep_alive:
            headers.append((b"connection", b"close"))
        return b"%b\r\n%b" % (_head(reply.status_code, headers), bytes(reply.body))


def _head(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers)


def why_aside(app: Any, root_path: str = "") -> str | None:
    """Return why predictions have to take the ordinary route of an ASGI app; None: they need not.

    Parameters
    ----------
    app : Any
        What uvicorn serves.
    root_path : str, default ""
        Where a proxy has mounted it.
    """
    if not isinstance(app, FastAPI) or getattr(app.state, "mlguard", None) is None:
        return "the app is wrapped in something else"
    if root_path or app.root_path:
        return "the app is mounted below a path"
    if app.state.mlguard.access_log is not None:
        return "an access log is kept"
    added = [
        getattr(one.cls, "__name__", "?")
        for one in app.user_middleware
        if getattr(one.cls, "__module__", "") != _OWN
    ]
    if added:
        return f"middleware was added ({', '.join(added)})"
    return _why_another_route(app)


def _why_another_route(app: FastAPI) -> str | None:
    for tail in ("/predict", "/predict/"):
        scope = {"type": "http", "method": "POST", "path": f"/any{tail}", "headers": []}
        route: Any = next(
            (one for one in app.router.routes if one.matches(scope)[0] is Match.FULL), None
        )
        if getattr(route, "endpoint", None) is not app.state.mlguard_predict:
            return "another route answers /{app}/predict"
        if route.dependant.dependencies:
            return "a dependency was added"
    return None


#: By the configuration of a server, which all its connections are given.
_PATHS: weakref.WeakKeyDictionary[Config, QuickPath] = weakref.WeakKeyDictionary()
