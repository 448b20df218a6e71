"""Open Inference Protocol v2 over REST: clients of KServe, Triton and MLServer ask unchanged.

``POST …/infer`` is a translation: tensors become the rows of a predict request in Clipper's
form, which goes the way of every other, through keys and limits, version, batcher, deadline,
log and metrics; its answer becomes tensors.  So there is one contract to keep, and what is
said of an answer there holds here.

What Clipper's form says in keys is said in outputs: ``output`` (the label), ``score``,
``default`` and ``query_id``, one value for each row, how sure a version is
(:mod:`mlguard.serving.v2_rows`), and ``default`` and ``default_explanation`` of the whole answer
among its parameters.  Errors are ``{"error"}``.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import FastAPI, Request  # noqa: TC002 - FastAPI reads the annotations
from fastapi.responses import Response

from mlguard.errors import MlguardError, NotFoundError
from mlguard.serving.engine import hand_over
from mlguard.serving.inputs import BadRequestError
from mlguard.serving.v2_rows import OUTPUTS, input_tensors, output_tensors, outputs_of, rows_of
from mlguard.serving.v2_tensors import (
    InferRequest,
    Tensor,
    TensorError,
    read_infer,
    write_infer,
)
from mlguard.version import VERSION

if TYPE_CHECKING:
    from mlguard.serving.admission import Reply
    from mlguard.serving.engine import AppEngine, ServedVersion
    from mlguard.serving.predict_app import ServerState

#: Header that says where the JSON of a body ends and raw tensors begin.
HEADER_LENGTH = "Inference-Header-Content-Length"
_EXTENSIONS = ["binary_tensor_data"]
#: What zlib is told to find at the start of a body.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The tensors cannot be read as rows of this app; `error` names them."},
    401: {"description": "The app has keys, and the request shows none of them."},
    404: {"description": "No such app or version."},
    413: {"description": "The body is too large."},
    429: {"description": "This caller asks too often; try again after Retry-After seconds."},
    503: {"description": "Overloaded; try again after Retry-After seconds."},
}
_INFER_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "`inputs`: tensors with `name`, `shape`, `datatype` and `data`; as raw "
        f"bytes after the JSON where `{HEADER_LENGTH}` says so.",
        "content": {"application/json": {"schema": {"type": "object", "required": ["inputs"]}}},
    }
}


class V2Routes:
    """The protocol's routes.

    Parameters
    ----------
    state : ServerState
        The engines.
    enter : callable
        ``enter(request, engine)`` lets a caller in and returns the name of its key.
    read_body : callable
        ``await read_body(request, limit)`` returns the body.
    """

    def __init__(
        self,
        state: ServerState,
        *,
        enter: Callable[[Request, AppEngine], str | None],
        read_body: Callable[[Request, int], Awaitable[bytes]],
    ) -> None:
        self._state = state
        self._enter = enter
        self._read_body = read_body

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        get: dict[str, Any] = {"tags": ["v2"], "responses": {404: _ERRORS[404]}}
        app.get("/v2", tags=["v2"])(self.server)
        app.get("/v2/", include_in_schema=False)(self.server)
        app.get("/v2/health/live", tags=["v2"])(self.live)
        app.get("/v2/health/ready", tags=["v2"])(self.ready)
        for path, n in (("", ""), ("/versions/{version}", "_version")):
            path = "/v2/models/{app_name}" + path  # noqa: PLW2901 - the whole of it
            app.get(path, operation_id=f"v2_metadata{n}", **get)(self.metadata)
            app.get(path + "/ready", operation_id=f"v2_ready{n}", **get)(self.model_ready)
            app.post(
                path + "/infer",
                operation_id=f"v2_infer{n}",
                tags=["v2"],
                responses=_ERRORS,
                openapi_extra=_INFER_DOC,
            )(self.infer)

    async def server(self) -> Response:
        """Say what this server is, and what it can do beyond the protocol."""
        return _json({"name": "mlguard", "version": VERSION, "extensions": _EXTENSIONS})

    async def live(self) -> Response:
        """Say that the process lives."""
        return _json({"live": True})

    async def ready(self) -> Response:
        """Say whether every version that should answer is loaded."""
        well, _ = self._state.health()
        return _json({"ready": well}, 200 if well else 503)

    async def metadata(self, app_name: str, version: str | None = None) -> Response:
        """Describe the tensors of an app, as its version takes and gives them."""
        engine, found = self._asked(app_name, version)
        document: dict[str, Any] = {
            "name": app_name,
            "versions": _names(engine),
            "platform": "mlguard",
        }
        # An app that nothing serves yet answers its default output to anything.
        document["inputs"] = [] if found is None else input_tensors(found.schema)
        document["outputs"] = _offered(found)
        return _json(document)

    async def model_ready(self, app_name: str, version: str | None = None) -> Response:
        """Say whether an app, or one of its versions, answers from a model."""
        _, found = self._asked(app_name, version)
        well = found is not None and found.replica.ready
        return _json({"name": app_name, "ready": well}, 200 if well else 503)

    async def infer(self, request: Request, app_name: str, version: str | None = None) -> Response:
        """Answer tensors of rows; within the SLO, if need be by default."""
        engine, _ = self._asked(app_name, None)
        try:
            caller = self._enter(request, engine)
            body = await self._read_body(request, self._state.max_body)
            body = _inflated(
                body, request.headers.get("content-encoding", ""), self._state.max_body
            )
            content, headers = await self._infer(
                engine, version, caller, *read_infer(body, _header_length(request))
            )
        except MlguardError as error:
            engine.refused(400 if isinstance(error, BadRequestError) else error.http_status)
            raise
        if self._state.draining:
            headers["Connection"] = "close"
        raw = HEADER_LENGTH in headers
        kind = "application/octet-stream" if raw else "application/json"
        return Response(content, media_type=kind, headers=headers)

    async def _infer(
        self,
        engine: AppEngine,
        version: str | None,
        caller: str | None,
        asked: InferRequest,
        tensors: list[Tensor],
    ) -> tuple[bytes, dict[str, str]]:
        # After the body: which version answers is decided when a request is whole.
        found = self._asked(engine.name, version)[1]
        schema = None if found is None else found.schema
        features = () if schema is None else schema.features
        wanted = [one.name for one in asked.outputs]
        known = OUTPUTS if found is None else [one["name"] for one in _offered(found)]
        for name in wanted:
            if name not in known:
                raise TensorError(f"no output {name!r}; there are {', '.join(known)}")
        document: dict[str, Any] = {
            key: asked.parameters[key] for key in ("uid", "groups") if key in asked.parameters
        }
        document["input_batch"] = rows_of(tensors, engine.settings.app.input, features)
        if version is not None:
            document["version"] = version
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        done = partial(hand_over, answered)
        waiting = engine.submit(msgspec.json.encode(document), done, caller=caller)
        try:
            body, origin = await answered
        finally:
            waiting.abandon()
        whole = msgspec.json.decode(body)
        answers = whole.get("batch_predictions", [whole])
        scores = [None if one is None or one.explanation else one.score for one in waiting.answers]
        parameters: dict[str, Any] = {"default": any(one["default"] for one in answers)}
        for key in ("default_explanation", "unusual"):
            said = dict.fromkeys(one[key] for one in answers if key in one)
            if said:
                parameters[key] = "; ".join(said)
        uncertainty = None if found is None else found.given.uncertainty
        outputs = outputs_of(answers, scores, schema, uncertainty, wanted=wanted)
        content, length = write_infer(engine.name, origin.version, asked, outputs, parameters)
        headers = {
            "X-MLGuard-Version": origin.version,
            "X-MLGuard-Generation": str(origin.generation),
        }
        return content, headers | ({} if length is None else {HEADER_LENGTH: str(length)})

    def _asked(self, name: str, version: str | None) -> tuple[AppEngine, ServedVersion | None]:
        engine = self._state.engines.get(name)
        if engine is None:
            raise NotFoundError(f"no app {name!r}")
        found = _version(engine, version)
        if version is not None and found is None:
            raise NotFoundError(f"version {version!r} of {name!r} is not loaded")
        return engine, found


def _version(engine: AppEngine, name: str | None) -> ServedVersion | None:
    active = engine.route.active
    if name is None:
        return None if active is None else engine.versions[active]
    ids = [*(() if active is None else (active,)), *engine.route.warm]
    loaded = (engine.versions[one] for one in ids if one in engine.versions)
    return next((one for one in loaded if one.name == name), None)


def _offered(version: ServedVersion | None) -> list[dict[str, Any]]:
    """Return the outputs that a version has, as its metadata names them."""
    return [] if version is None else output_tensors(version.schema, version.given.uncertainty)


def _names(engine: AppEngine) -> list[str]:
    """Return the versions that may be asked, the one that answers by itself first."""
    ids = [one for one in (engine.route.active, *engine.route.warm) if one is not None]
    return [engine.versions[one].name for one in dict.fromkeys(ids) if one in engine.versions]


def _header_length(request: Request) -> int | None:
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 20):  # int64
        raise TensorError(f"{HEADER_LENGTH} is no number")
    return int(given)


def _inflated(body: bytes, coding: str, limit: int) -> bytes:
    if not coding or coding == "identity":
        return body
    if coding not in _WINDOWS:
        raise TensorError(f"Content-Encoding {coding!r} is neither gzip nor deflate")
    unzip = zlib.decompressobj(_WINDOWS[coding])
    try:
        # One byte more than may be: then nobody has to inflate the rest to know.
        whole = unzip.decompress(body, limit + 1)
    except zlib.error:
        raise TensorError(f"the body is not {coding}") from None
    if len(whole) > limit or unzip.unconsumed_tail:
        raise TensorError(f"the body is larger than {limit} bytes once inflated")
    if not unzip.eof:
        raise TensorError("the compressed body ends early")
    return whole


def _json(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
