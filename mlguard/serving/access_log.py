"""One line of JSON for each request, off the answer's path; off unless ``[server] access_log``.

A line says who asked what, what came of it and how long it took.  It holds no body, no query
string and no key, only the name of the key that was shown.  Lines are put aside in memory and
appended by a thread, at least every half second, each time to the file of that name: so it may be
moved away by whatever rotates logs.  What cannot be written is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("mlguard.serving")

#: Written instead of a file's name: standard error.
STDERR = "-"
_FLUSH_S = 0.5
_MOST_LINES = 100_000
_SHOWN_HEADERS = {b"x-mlguard-version": "version", b"x-mlguard-generation": "generation"}


class AccessLog:
    """Takes lines from the event loop and writes them in a thread of its own.

    Parameters
    ----------
    target : str or Path
        File that lines are appended to; ``"-"``: standard error.
    """

    def __init__(self, target: str | Path) -> None:
        self._target = target
        self._lines: deque[dict[str, Any]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._failed = False
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(
        self,
        *,
        client: str,
        method: str,
        path: str,
        status: int,
        took_s: float,
        key: str | None = None,
        version: str | None = None,
        generation: int | None = None,
        at: float | None = None,
    ) -> None:
        """Take one line; never blocks, never raises.

        Parameters
        ----------
        client : str
            The caller's address.
        method, path : str
            What was asked, without query string.
        status : int
            Of the answer.
        took_s : float
            Seconds from the request's head to the end of the answer.
        key : str, optional
            Name of the key that was shown.
        version, generation : optional
            Who answered, of a prediction.
        at : float, optional
            Seconds since the epoch; default now.
        """
        if len(self._lines) >= _MOST_LINES:
            self.dropped += 1
            return
        line: dict[str, Any] = {
            "time": time.time() if at is None else at,
            "client": client,
            "method": method,
            "path": path,
            "status": status,
            "ms": round(took_s * 1000, 3),
        }
        more = {"key": key, "version": version, "generation": generation}
        line |= {name: value for name, value in more.items() if value is not None}
        self._lines.append(line)

    def close(self) -> None:
        """Write what is left."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._write()

    def _run(self) -> None:
        while not self._stopping.wait(_FLUSH_S):
            self._write()

    def _write(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        text = b"".join(msgspec.json.encode(_dated(line)) + b"\n" for line in lines)
        try:
            if self._target == STDERR:
                sys.stderr.buffer.write(text)
                sys.stderr.buffer.flush()
            else:
                # Appended in one piece: front ends share the file.
                file = os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
                try:
                    os.write(file, text)
                finally:
                    os.close(file)
            self._failed = False
        except (OSError, ValueError) as error:
            self.dropped += len(lines)
            if not self._failed:
                logger.warning("the access log cannot be written, lines are dropped: %s", error)
            self._failed = True


def _dated(line: dict[str, Any]) -> dict[str, Any]:
    moment = datetime.fromtimestamp(line["time"], UTC)
    return line | {"time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")}


class Logged:
    """ASGI middleware that writes a line for each request of the app within.

    Parameters
    ----------
    app : ASGI app
        What answers.
    log : AccessLog
        Where lines go.
    """

    def __init__(self, app: ASGIApp, log: AccessLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and say so."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500
        found: dict[str, Any] = {}

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message.get("headers", ()):
                    if name in _SHOWN_HEADERS:
                        found[_SHOWN_HEADERS[name]] = value.decode("latin-1")
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if "generation" in found:
                found["generation"] = int(found["generation"])
            self._log.put(
                client=scope["client"][0] if scope.get("client") else "",
                method=scope["method"],
                path=scope["path"],
                status=status,
                took_s=time.monotonic() - started,
                key=scope.get("mlguard.key"),
                **found,
            )
