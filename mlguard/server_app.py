"""The whole server: predictions and labels, ``/api`` for programs, and a page for people.

``create_app(project)`` is an ASGI app that any server can run; ``python -m mlguard.server_app``
is what the supervisor starts, on a socket that it was handed.

``/api`` does what the commands do.  Reading is open to this machine, a change needs the admin
token (see :mod:`mlguard.serving.access`).  Handlers are plain functions: FastAPI runs them in
threads, so a slow registry never holds up a prediction.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import Response  # noqa: TC002 - read when routes are added
from starlette.concurrency import run_in_threadpool

from mlguard.config import ProjectSettings, load_app, parse_duration
from mlguard.dashboard.routes import Dashboard
from mlguard.dashboard.source import Source
from mlguard.errors import NotFoundError, UndecidedError, UsageError
from mlguard.registry.records import AppState, Event, Hold, Version
from mlguard.registry.store import Registry
from mlguard.serving.access import admin_token, may_change, may_read
from mlguard.serving.front import Front, run
from mlguard.serving.predict_app import PAGE_HEADERS, create_predict_app
from mlguard.serving.replies import json_reply, read_body

_EVENTS = 100
#: Longest that a hold may last by itself.
_LONGEST_HOLD_S = 30 * 86400.0


#: Longest that the reply to a change waits until this process answers callers by it.
_SWITCH_S = 5.0
#: Largest body of a change, in bytes.
_LARGEST_CHANGE = 65_536
_SHAPE = 'send {"reason": "…"}'
_CHANGE_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An object with a `reason`; for rollback possibly `to` and `force`, for "
        "hold possibly `expires`.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["reason"],
                    "properties": {
                        "reason": {"type": "string", "minLength": 1},
                        "to": {"type": "string"},
                        "force": {"type": "boolean"},
                        "expires": {"type": "string"},
                    },
                }
            }
        },
    }
}


def read_arguments(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a change came with.

    Raises
    ------
    UsageError
        If it is none.
    """
    try:
        arguments = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the body is no JSON: {error}", hint=_SHAPE) from None
    if not isinstance(arguments, dict):
        raise UsageError("the body is no JSON object", hint=_SHAPE)
    return arguments


def create_app(project: ProjectSettings) -> FastAPI:
    """Return the ASGI app of a project; its lifespan loads what should answer."""
    return app_of(Front(project))


def app_of(front: Front) -> FastAPI:
    """Return the ASGI app around one front end."""
    front.mail_due = partial(mail_due, front.project)
    app = create_predict_app(front.state, lifespan=front.lifespan)
    _Api(front).add_to(app)
    return app


def mail_due(project: ProjectSettings, registry: Registry, now: float) -> float | None:
    """Return since when the most overdue mail ought to be gone; None where none is due."""
    if registry.outbox.oldest_pending() is None:
        return None
    # What paces mail is not loaded by a server that has none.
    from mlguard.notify.outbox import planned, rules_for

    return planned(registry, rules_for(project.notify), now).oldest_due()


class _Api:
    """Reading and changing the registry through HTTP."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.project = front.project
        self._token = admin_token(front.project)
        self._registry: Registry | None = None

    @property
    def registry(self) -> Registry:
        """The registry, for what a human asks of it."""
        if self._registry is None:
            self._registry = Registry.open(self.project, actor="api")
        return self._registry

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""

        def reader(request: Request) -> None:
            may_read(request.headers, request.client.host if request.client else None, self._token)

        def changer(request: Request) -> None:
            may_change(request.headers, self._token)

        reading: dict[str, Any] = {"dependencies": [Depends(reader)], "tags": ["api"]}
        changing: dict[str, Any] = {"dependencies": [Depends(changer)], "tags": ["api"]}

        @app.get("/api/apps", **reading)
        def apps() -> Response:
            """List the apps and what serves them."""
            return json_reply({"apps": [self.status(name) for name in self.names()]})

        @app.get("/api/apps/{app_name}", **reading)
        def status(app_name: str) -> Response:
            """Say what serves an app, since when, and why."""
            return json_reply(self.status(self.known(app_name)) | self.more(app_name))

        @app.get("/api/apps/{app_name}/history", **reading)
        def history(
            app_name: str, limit: Annotated[int, Query(ge=1, le=10_000)] = _EVENTS
        ) -> Response:
            """Return an app's audit trail, newest first."""
            events = self.registry.events(self.known(app_name), limit=limit)
            return json_reply({"app": app_name, "events": [_event(one) for one in events]})

        @app.post("/api/apps/{app_name}/{command}", openapi_extra=_CHANGE_DOC, **changing)
        async def change(app_name: str, command: str, request: Request) -> Response:
            """Roll back, block, unblock, hold, resume; promote, abort or confirm a rollout."""
            # As everywhere, the body is JSON whatever its Content-Type says.
            arguments = read_arguments(await read_body(request, _LARGEST_CHANGE))
            return await run_in_threadpool(self.changed, app_name, command, arguments)

        source = Source(
            project=self.project,
            registry=lambda: self.registry,
            names=self.names,
            serving=self.serving,
            figures=self.front.metrics.render,
            example=example_row,
        )
        Dashboard(source, reader=reader, headers=PAGE_HEADERS).add_to(app)

    # --- reading ---

    def names(self) -> list[str]:
        """Return the apps of the project and of the registry."""
        return sorted({*self.front.engines, *(one.app for one in self.registry.apps())})

    def serving(self) -> dict[str, str | None]:
        """Return what this process answers with, by app; None: the default output."""
        return {
            name: None if (active := engine.route.active) is None else engine.versions[active].name
            for name, engine in sorted(self.front.engines.items())
        }

    def known(self, app: str) -> str:
        """Return the name of an app that exists."""
        if app not in self.names():
            raise NotFoundError(f"no app {app!r}", hint=f"apps: {', '.join(self.names())}")
        return app

    def status(self, app: str) -> dict[str, Any]:
        """Return what serves an app, as the registry says and as this process does."""
        state = self.registry.app(app)
        engine = self.front.engines.get(app)
        targets = self.registry.rollback_targets(app)
        return _state(state) | {
            "observed_generation": engine.route.generation if engine else None,
            "rollback_target": targets[0].name if targets else None,
        }

    def more(self, app: str) -> dict[str, Any]:
        """Return what a single app's status adds."""
        sync = self.front.sync
        candidate = self.registry.candidate(app)
        return {
            "candidate": _version(candidate) if candidate else None,
            "holds": [_hold(one) for one in self.registry.holds(app)],
            "versions": [_version(one) for one in self.registry.versions(app)],
            "lagging": sync.lagging.get(app) if sync else None,
            "settings_rejected": sync.rejected.get(app) if sync else None,
        }

    # --- changing ---

    def changed(self, app_name: str, command: str, arguments: dict[str, Any]) -> Response:
        """Carry out one command and return what then is."""
        return json_reply(self.change(self.known(app_name), command, arguments))

    def change(self, app: str, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        commands: dict[str, Callable[[str, str, dict[str, Any]], bool | None]] = {
            "rollback": self._rollback,
            "block": self._block,
            "unblock": self._unblock,
            "hold": self._hold,
            "resume": self._resume,
            "promote": self._promote,
            "abort": self._abort,
            "confirm": self._confirm,
        }
        if command not in commands:
            raise NotFoundError(f"no command {command!r}", hint=f"use {', '.join(commands)}")
        own = {
            "rollback": ("to", "force"),
            "hold": ("expires",),
            "promote": ("accept_inconclusive",),
        }
        allowed = {"reason", *own.get(command, ())}
        unknown = sorted(set(arguments) - allowed)
        if unknown:
            raise UsageError(f"{command} takes {', '.join(sorted(allowed))}, not {unknown[0]!r}")
        reason = arguments.get("reason")
        if not isinstance(reason, str) or not reason.strip():
            raise UsageError(f"{command} needs a reason, as a sentence")
        before = self.registry.app(app).generation
        changed = commands[command](app, reason.strip(), arguments)
        after = self.registry.app(app)
        moved = after.generation != before
        sync = self.front.sync
        return _state(after) | {
            "ok": True,
            "changed": moved if changed is None else changed,
            # What is said here is what the next request meets.
            "observed_generation": sync.caught_up(app, after.generation, _SWITCH_S)
            if sync
            else None,
        }

    def _rollback(self, app: str, reason: str, arguments: dict[str, Any]) -> None:
        name = arguments.get("to")
        force = arguments.get("force", False)
        if not isinstance(force, bool):
            raise UsageError("force is true or false")
        before = self.registry.app(app)
        if name is None:
            to = next(iter(self.registry.rollback_targets(app)), None)
        else:
            to = self.registry.version(app, str(name))
            if to is None:
                raise NotFoundError(f"{app} has no version {str(name)!r}")
        if to is not None:
            # What is held loaded here answers at once; anything else a child process loads.
            from mlguard.deploy.standby import refuse_unfit

            settings = load_app(self.project, app)
            sync, target = self.front.sync, to.id
            refuse_unfit(
                self.project,
                settings,
                self.registry,
                to,
                force=force,
                stands_by=None if sync is None else lambda: sync.stands_by(app, target),
            )
        self.registry.rollback(
            app, to=to, automatic=False, reason=reason, expected_generation=before.generation
        )

    def _block(self, app: str, reason: str, _arguments: dict[str, Any]) -> None:
        self.registry.block(app, reason)

    def _unblock(self, app: str, reason: str, _arguments: dict[str, Any]) -> None:
        self.registry.unblock(app, reason)

    def _hold(self, app: str, reason: str, arguments: dict[str, Any]) -> None:
        expires = None
        if arguments.get("expires") is not None:
            try:
                seconds = parse_duration(arguments["expires"])
            except ValueError as error:
                raise UsageError(f"expires: {error}") from error
            if seconds > _LONGEST_HOLD_S:
                raise UsageError("a hold lasts 30 days at most")
            expires = time.time() + seconds
        self.registry.hold(app, reason, expires=expires)

    def _resume(self, app: str, reason: str, _arguments: dict[str, Any]) -> None:
        self.registry.resume(app, reason)

    def _promote(self, app: str, reason: str, arguments: dict[str, Any]) -> bool:
        # What a deployment needs is not loaded by a server that nobody asks for it.
        from mlguard.deploy.steering import promote

        accepted = arguments.get("accept_inconclusive", [])
        if not isinstance(accepted, list) or not all(isinstance(one, str) for one in accepted):
            raise UsageError("accept_inconclusive is a list of checks")
        settings = load_app(self.project, app)
        done = promote(self.project, settings, self.registry, accept=accepted, reason=reason)
        if not done.ok:
            raise UndecidedError(done.lines[0], hint="accept what is undecided by its name")
        return done.changed

    def _abort(self, app: str, reason: str, _arguments: dict[str, Any]) -> bool:
        from mlguard.deploy.steering import abort

        return abort(self.registry, app, reason=reason).changed

    def _confirm(self, app: str, reason: str, _arguments: dict[str, Any]) -> bool:
        from mlguard.deploy.steering import confirm

        return confirm(self.registry, app, reason=reason).changed


def example_row(manifest: dict[str, Any] | None) -> str:
    """Return JSON of a row that a version can read: the middle of what it has seen."""
    if manifest is None:
        return "…"
    schema = manifest["input_schema"]
    kind = schema["input"]
    if kind in ("strings", "bytes"):
        return '"aGVsbG8="' if kind == "bytes" else '"hello"'
    row = {one["name"]: _example(one) for one in schema["features"]}
    return msgspec.json.encode(row if kind == "table" else list(row.values())).decode()


def _example(feature: dict[str, Any]) -> Any:
    kind = feature["kind"]
    if kind in ("number", "integer"):
        middle = ((feature.get("low") or 0) + (feature.get("high") or 0)) / 2
        return int(middle) if kind == "integer" else float(f"{middle:.3g}")
    if kind == "category":
        return (feature.get("categories") or [""])[0]
    return {"boolean": False, "time": "2026-01-31T12:00:00Z"}.get(kind, "")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _version(version: Version) -> dict[str, Any]:
    return {
        "version": version.name,
        "digest": version.digest,
        "state": version.state.value,
        "registered_at": _time(version.registered_at),
        "message": version.message,
        "commit": version.commit,
    }


def _state(state: AppState) -> dict[str, Any]:
    active = state.active
    since = _time(state.since) if state.since is not None else None
    return {
        "app": state.app,
        "generation": state.generation,
        "mode": state.mode.value,
        "active": None
        if active is None
        else {
            "version": active.name,
            "digest": active.digest,
            "state": active.state.value,
            "since": since,
        },
        "since": since,
        "reason": state.reason,
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "at": _time(event.at),
        "app": event.app,
        "generation": event.generation,
        "kind": event.kind,
        "actor": event.actor,
        "reason": event.reason,
        "version": event.version,
        "detail": event.detail,
    }


def _hold(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "reason": hold.reason,
        "actor": hold.actor,
        "created_at": _time(hold.created_at),
        "expires": _time(hold.expires) if hold.expires is not None else None,
        "incident": hold.incident,
    }


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], app_of))
