"""Bodies read no further than they may be, JSON replies, and errors that are JSON as well.

An error is ``{"error", "cause"}``, under ``/v2`` that protocol's ``{"error"}``; no reply carries
a traceback.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mlguard.errors import MlguardError, RefusedError
from mlguard.serving.admission import OverloadedError
from mlguard.serving.inputs import BadRequestError
from mlguard.serving.limits import Door, MisdirectedError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("mlguard.serving")

_TITLES = {
    400: "Bad request",
    401: "Not authorised",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Body too large",
    421: "Misdirected request",
    429: "Too many requests",
    503: "Overloaded",
}


class TooLargeError(MlguardError):
    """The request's body is larger than the server takes."""

    http_status = 413
    code = "too_large"


def json_reply(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response."""
    return Response(
        msgspec.json.encode(document),
        status_code=status,
        headers=None if headers is None else dict(headers),
        media_type="application/json",
    )


def error_reply(
    status: int, cause: str, *, kind: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as JSON."""
    error = kind or _TITLES.get(status, "Error")
    return json_reply({"error": error, "cause": cause}, status, headers)


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body, read no further than ``limit`` bytes.

    Raises
    ------
    TooLargeError
        If it is longer.
    """
    too_large = TooLargeError(f"the body is larger than {limit} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    parts = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large
            parts.append(part)
    except ClientDisconnect:
        # Nobody hears the answer; it only has to be no failure of ours.
        raise HTTPException(400, "the body ended early") from None
    return b"".join(parts)


class Guarded:
    """ASGI middleware: the names that this server answers to, and what browsers must not guess.

    Parameters
    ----------
    app : ASGI app
        What answers.
    door : Door
        Knows the names.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse a request that was meant for somebody else."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        try:
            self._door.check_host(Headers(scope=scope).get("host", "").encode("latin-1"))
        except MisdirectedError as error:
            await error_reply(error.http_status, error.message)(scope, receive, marked)
            return
        await self._app(scope, receive, marked)


def add_error_replies(app: FastAPI) -> None:
    """Make every error of an app JSON."""
    handlers: dict[Any, Any] = {
        MlguardError: _known,
        HTTPException: _http,
        RequestValidationError: _validation,
        Exception: _unknown,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _reply(
    request: Request,
    status: int,
    cause: str,
    *,
    kind: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    path = request.url.path
    if path == "/v2" or path.startswith("/v2/"):
        return json_reply({"error": cause}, status, headers)
    return error_reply(status, cause, kind=kind, headers=headers)


def reply_to(error: MlguardError) -> Response:
    """Return what a caller is told about an error of ours."""
    status, cause, kind, headers = _told(error)
    return error_reply(status, cause, kind=kind, headers=headers)


def _told(error: MlguardError) -> tuple[int, str, str, dict[str, str]]:
    """Return status, cause, title and headers of an error."""
    if isinstance(error, BadRequestError):
        return 400, error.cause, error.kind, {}
    status = error.http_status
    if status >= 500:  # HTTP's own number
        logger.warning("%s", error)
    kind = ""
    if isinstance(error, RefusedError) and status == 409:  # HTTP's own number
        kind = "Refused"  # trying again will not help, unlike at a conflict
    elif status == 503 and not isinstance(error, OverloadedError):
        kind = "Unavailable"
    hint = f"; {error.hint}" if error.hint else ""
    return status, f"{error.message}{hint}", kind, _error_headers(error, status)


async def _known(request: Request, error: MlguardError) -> Response:
    status, cause, kind, headers = _told(error)
    if isinstance(error, TooLargeError) and request.scope["http_version"].startswith("1"):
        # The rest of the body was not read, so a server may close the connection after this
        # answer; whoever is not told sends the next request into it, and loses that.
        headers = {**headers, "Connection": "close"}
    return _reply(request, status, cause, kind=kind, headers=headers)


async def _http(request: Request, error: HTTPException) -> Response:
    causes = {404: "no such route", 405: "this route takes other methods; see Allow"}
    standard = error.detail in ("Not Found", "Method Not Allowed")
    cause = causes.get(error.status_code, error.detail) if standard else error.detail
    return _reply(request, error.status_code, cause, headers=error.headers)


async def _validation(request: Request, error: RequestValidationError) -> Response:
    causes = [
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
    ]
    return _reply(request, 400, "; ".join(causes))


async def _unknown(request: Request, _error: Exception) -> Response:
    # Starlette raises it again for the server's log; the caller gets no traceback.
    return _reply(request, 500, "the server failed on this request; its log says why")


def _error_headers(error: MlguardError, status: int) -> dict[str, str]:
    """Return what HTTP wants said beside an error."""
    if status == 401:  # HTTP's own number
        return {"WWW-Authenticate": "Bearer"}
    if error.retryable and status in (429, 503):
        return {"Retry-After": str(math.ceil(error.data.get("retry_after_s", 1)))}
    return {}
