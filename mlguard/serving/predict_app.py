"""The FastAPI app that answers predictions and takes labels.

``POST /{app}/predict`` here is the ordinary route: whatever answers it faster must answer the
same.  Bodies are read raw, because Clipper reads JSON whatever the Content-Type says.

Every reply but ``/metrics`` and ``/docs`` is JSON; an error is ``{"error", "cause"}``, and no
reply carries a traceback.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from mlguard.errors import MlguardError
from mlguard.serving import metrics as figures
from mlguard.serving.access_log import AccessLog, Logged
from mlguard.serving.engine import AppEngine
from mlguard.serving.feedback import DEFAULT_SOURCE, Feedback
from mlguard.serving.inputs import BadRequestError
from mlguard.serving.limits import Door
from mlguard.serving.metrics import Metrics
from mlguard.serving.replies import Guarded, add_error_replies, json_reply, read_body
from mlguard.serving.v2 import V2Routes
from mlguard.version import VERSION

#: What every page says: keep nothing, load nothing, be framed by nobody.
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(slots=True)
class ServerState:
    """What the routes need.

    Attributes
    ----------
    engines : mapping of str to AppEngine
        The apps by name; may grow while serving.
    feedback : mapping of str to Feedback
        Takers of labels by app.
    metrics : Metrics
        What ``/metrics`` shows.
    max_body : int
        Largest body in bytes.
    health : callable
        Returns whether this process is ready, and the body of ``/readyz``.
    draining : bool
        Whether the process is about to end: answers then ask callers to connect anew.
    door : Door
        Who may come in, and how often.
    access_log : AccessLog or None
        Takes a line for each request; None: nobody wants them.
    predict_path : str
        Which way predictions take, ``"protocol"`` or ``"route: why"``.
    """

    engines: MutableMapping[str, AppEngine]
    feedback: Mapping[str, Feedback]
    metrics: Metrics
    max_body: int = 8 * 2**20
    health: Callable[[], tuple[bool, dict[str, Any]]] = field(
        default=lambda: (True, {"ready": True})
    )
    draining: bool = False
    door: Door = field(default_factory=Door)
    access_log: AccessLog | None = None
    predict_path: str = "route: another server than mlguard's own"


_ROW_SCHEMA = {
    "description": "One row: an array of numbers, a string, base64, or {feature: value}.",
    "examples": [[4.3, 2.0, 1.0, 0.1]],
}
_PREDICT_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "`input` (one row) or `input_batch` (an array of rows).",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "input": _ROW_SCHEMA,
                        "input_batch": {"type": "array", "items": _ROW_SCHEMA},
                        "version": {"type": "string"},
                        "uid": {"type": "string"},
                        "groups": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                }
            }
        },
    }
}
_UPDATE_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "`query_id` and `label`, or Clipper's `uid`, `input` and `label`.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["label"],
                    "properties": {
                        "query_id": {"type": "integer"},
                        "label": {},
                        "uid": {"type": "string"},
                        "input": _ROW_SCHEMA,
                    },
                }
            }
        },
    }
}
_PREDICT_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body cannot be read; `cause` names the field."},
    401: {"description": "The app has keys, and the request shows none of them."},
    404: {"description": "No such app."},
    413: {"description": "The body is too large."},
    429: {"description": "This caller asks too often; try again after Retry-After seconds."},
    503: {"description": "Overloaded; try again after Retry-After seconds."},
}
_UPDATE_ERRORS = _PREDICT_ERRORS | {409: {"description": "Another label was there first."}}


_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "cause": {"type": "string"}},
}
#: What every route may answer.
_ALWAYS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "The caller can mend it; `cause` says how.",
        "content": {"application/json": {"schema": _ERROR_SCHEMA}},
    },
    503: {
        "description": "Not now: overloaded, not ready, or the registry cannot be read.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
}


def create_predict_app(
    state: ServerState,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """Return the app that answers for some engines.

    Parameters
    ----------
    state : ServerState
        The engines and what goes with them.
    lifespan : callable, optional
        Async context manager around the server's life.
    """
    app = FastAPI(
        title="mlguard",
        version=VERSION,
        summary="Predictions and labels.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=_ALWAYS,
        lifespan=lifespan,
        # FastAPI would send figures to wherever the environment says; ours are at /metrics.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.mlguard = state
    app.add_middleware(Guarded, door=state.door)
    if state.access_log is not None:
        app.add_middleware(Logged, log=state.access_log)
    add_error_replies(app)
    _predictions(app, state)
    _operations(app, state)
    return app


def _predictions(app: FastAPI, state: ServerState) -> None:
    """Add what models answer and learn from."""

    def enter(request: Request, engine: AppEngine) -> str | None:
        client = request.client.host if request.client else ""
        caller = state.door.enter(engine.keys, request.headers.raw, client, time.monotonic())
        request.scope["mlguard.key"] = caller
        return caller

    async def predict(app_name: str, request: Request) -> Response:
        """Answer one row, or a batch of rows; within the SLO, if need be by default."""
        engine = state.engines.get(app_name)
        if engine is None:
            raise HTTPException(404, f"no app {app_name!r}")
        try:
            caller = enter(request, engine)
            reply = await engine.predict(await read_body(request, state.max_body), caller=caller)
        except MlguardError as error:
            status = 400 if isinstance(error, BadRequestError) else error.http_status
            engine.refused(status)
            raise
        headers = {
            "X-MLGuard-Version": reply.origin.version,
            "X-MLGuard-Generation": str(reply.origin.generation),
        }
        if state.draining:
            headers["Connection"] = "close"
        return Response(reply.body, media_type="application/json", headers=headers)

    async def update(app_name: str, request: Request) -> Response:
        """Take the label of a prediction; it is durable before the answer."""
        feedback = state.feedback.get(app_name)
        engine = state.engines.get(app_name)
        if feedback is None or engine is None:
            raise HTTPException(404, f"no app {app_name!r}")
        source = enter(request, engine) or DEFAULT_SOURCE
        await feedback.put(await read_body(request, state.max_body), source=source)
        closing = {"Connection": "close"} if state.draining else None
        return json_reply({"received": True}, headers=closing)

    for path, handler, extra, errors in (
        ("/{app_name}/predict", predict, _PREDICT_DOC, _PREDICT_ERRORS),
        ("/{app_name}/update", update, _UPDATE_DOC, _UPDATE_ERRORS),
    ):
        app.post(path, tags=["predictions"], responses=errors, openapi_extra=extra)(handler)
        app.post(path + "/", include_in_schema=False)(handler)
    app.state.mlguard_predict = predict
    V2Routes(state, enter=enter, read_body=read_body).add_to(app)


def _operations(app: FastAPI, state: ServerState) -> None:
    """Add what operators and their tools ask."""

    async def healthz() -> Response:
        """Say that the process lives."""
        return json_reply({"live": True})

    async def readyz() -> Response:
        """Say whether every version that should answer is loaded."""
        ready, body = state.health()
        body = body | {"predict_path": state.predict_path}
        return json_reply(body, 200 if ready else 503)

    async def metrics() -> Response:
        """Return the figures for Prometheus."""
        return Response(state.metrics.render(), media_type=figures.CONTENT_TYPE)

    async def docs() -> Response:
        """Return this page."""
        return HTMLResponse(docs_page(app.openapi()), headers=PAGE_HEADERS)

    app.get("/healthz", tags=["operations"])(healthz)
    app.get("/readyz", tags=["operations"])(readyz)
    app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)(metrics)
    app.get("/docs", tags=["operations"], response_class=HTMLResponse)(docs)


def docs_page(document: Mapping[str, Any]) -> str:
    """Return the OpenAPI document as a page that loads nothing from elsewhere.

    FastAPI's own page takes its script and style from a CDN; a server that must answer with
    the network denied cannot, and carrying a copy of somebody's files is no better.
    """
    escape = html.escape
    rows = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = "".join(
                f"<li><code>{escape(str(status))}</code> {escape(answer.get('description', ''))}"
                for status, answer in operation.get("responses", {}).items()
            )
            body = operation.get("requestBody", {}).get("description", "")
            rows.append(
                f"<section><h2><b>{escape(method.upper())}</b> <code>{escape(path)}</code></h2>"
                f"<p>{escape(operation.get('description', operation.get('summary', '')))}</p>"
                + (f"<p>Body: {escape(body)}</p>" if body else "")
                + f"<ul>{answers}</ul></section>"
            )
    info = document["info"]
    return page(
        f"{info['title']} {info['version']}: HTTP",
        f"<h1>{escape(info['title'])} {escape(info['version'])}: HTTP</h1>"
        '<p>The same as <a href="/openapi.json">an OpenAPI document</a> for programs.</p>'
        + "".join(rows),
    )


_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#d5d9de;--dim:#5b636c;
--accent:#0b63ce;--ok:#1a7f37;--bad:#cf222e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171a;--line:#353b42;
--dim:#9aa4af;--accent:#6cb0ff;--ok:#4ac26b;--bad:#ff7b72}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:60rem;margin:0 auto;padding:32px 16px}
h1{font-size:28px;line-height:1.2}h2{font-size:16px;margin:0 0 8px}
section{border-top:1px solid var(--line);padding:16px 0}
p{max-width:72ch;margin:8px 0}a{color:var(--accent)}
pre,code{font:14px/1.5 ui-monospace,monospace}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:8px 0}
.dim{color:var(--dim)}.ok{color:var(--ok)}.bad{color:var(--bad)}
"""


def page(title: str, body: str) -> str:
    """Return a self-contained HTML page; ``body`` is HTML, ``title`` is text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>"
    )
