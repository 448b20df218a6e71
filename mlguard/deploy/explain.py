"""One prediction taken apart: what was asked, who answered and why, what was true, who differs.

The query id alone tells app, version and generation: ids come in blocks that the registry
reserves for them.  So much is known of every prediction; the row, the answer and why it was the
default stand in the prediction log, which may have lost the row to a kill or let it go with
``[log] retention``, and which never held what ``[log] redact`` keeps out.

The other versions are asked now, each in a process of its own, with the row as it was logged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlguard.config import AppSettings, ProjectSettings
from mlguard.data.labels import LabelStore, default_url
from mlguard.data.log_columns import feature_column
from mlguard.data.log_store import project_log
from mlguard.deploy.explanation import Explanation, Logged, OtherAnswer
from mlguard.errors import MlguardError, NotFoundError
from mlguard.models.bundle import Manifest
from mlguard.models.isolation import predict_in_child
from mlguard.models.schema import InputSchema
from mlguard.models.thresholds import by_group
from mlguard.registry import Registry, Version
from mlguard.serving.query_ids import UNCREDITED
from mlguard.serving.row_check import RowCheck

#: Other versions that are asked, at most.
_MOST_ASKED = 5


def explain(
    project: ProjectSettings,
    registry: Registry,
    app: str,
    query_id: int,
    *,
    settings: AppSettings | None,
    now: float,
    progress: Callable[[str], None] = lambda _line: None,
) -> Explanation:
    """Take one prediction apart.

    Parameters
    ----------
    project : ProjectSettings
        Where log and labels are.
    registry : Registry
        Knows whose the id is.
    app : str
        The app.
    query_id : int
        As the caller got it.
    settings : AppSettings or None
        In force now; None where app.toml cannot be read.
    now : float
        Seconds since the epoch.
    progress : callable, optional
        Told in one line what is going on.

    Raises
    ------
    NotFoundError
        If nobody was given that id by this app.
    """
    version_id, generation = _whose(project, registry, app, query_id)
    version = registry.version_by_id(version_id) if version_id else None
    schema = InputSchema.from_json(version.manifest["input_schema"]) if version else None
    redact = frozenset(settings.log.redact) if settings is not None else frozenset()
    log = project_log(project)
    rows = log.read(app, version_id=version_id, query_ids=[query_id])
    logged = _logged(rows.slice(0, 1).to_pylist()[0], schema, redact) if rows.num_rows else None
    labels = LabelStore(default_url(project.log_dir, app))
    try:
        label = labels.get([query_id]).get(query_id)
    finally:
        labels.close()
    not_asked = _reason_not_to_ask(schema, logged)
    others: list[OtherAnswer] = []
    if logged is not None and version is not None and not not_asked:
        for role, one in _versions(registry, app, version):
            progress(f"asking {one.name}")
            others.append(_answer(registry, role, one, logged, settings))
    unusual: tuple[tuple[str, str], ...] = ()
    if schema is not None and logged is not None:
        shown = tuple(one for one in schema.features if one.name in logged.row)
        cells = [logged.row[one.name] for one in shown]
        unusual = RowCheck("table", shown).unusual(cells)
    return Explanation(
        app=app,
        query_id=query_id,
        version=version.name if version else None,
        state=version.state.value if version else None,
        digest=version.digest if version else None,
        generation=generation,
        logged=logged,
        unusual=unusual,
        label=label,
        others=tuple(others),
        not_asked=not_asked,
        now=now,
    )


def _whose(
    project: ProjectSettings, registry: Registry, app: str, query_id: int
) -> tuple[int, int]:
    """Return version id (0: none) and generation of a query id."""
    block = registry.id_block(query_id)
    if block is not None and block.app == app:
        return block.version_id or 0, block.generation
    if block is not None:
        raise NotFoundError(
            f"query {query_id} is one of {block.app}, not of {app}",
            hint=f"mlguard explain {block.app} {query_id}",
            app=app,
        )
    if query_id >= UNCREDITED:
        # Drawn by a server that could not reach the registry: only the log knows whose it is.
        log = project_log(project)
        for one in (0, *(version.id for version in registry.versions(app))):
            rows = log.read(app, version_id=one, query_ids=[query_id])
            if rows.num_rows:
                return one, int(rows["generation"][0].as_py())
    raise NotFoundError(
        f"nobody was given query id {query_id} by {app}",
        hint="query_id stands in the answer of predict",
        app=app,
    )


def _logged(found: Mapping[str, Any], schema: InputSchema | None, redact: frozenset[str]) -> Logged:
    """Return what a row of the log says and may be shown."""
    features = schema.features if schema is not None else ()
    row = {}
    for one in features:
        column = feature_column(one.name)
        # Of a row that is not in the sample there are columns, with nothing in them.
        # What is redacted today is not shown, though it was written while it was not.
        if column in found and one.name not in redact and found.get("inputs_kept") is not False:
            row[one.name] = found[column]
    groups = json.loads(found["groups"]) if found["groups"] else {}
    return Logged(
        at=found["time"],
        output=None if found["output"] is None else json.loads(found["output"]),
        score=found["score"],
        default=found["default"],
        why_default=found["explanation"],
        uid=None if "uid" in redact else found["uid"],
        groups={name: value for name, value in groups.items() if name not in redact},
        latency_ms=found["latency_ms"],
        row=row,
        hidden=tuple(one.name for one in features if one.name not in row),
    )


def _reason_not_to_ask(schema: InputSchema | None, logged: Logged | None) -> str:
    if logged is None:
        return "its row is not in the log"
    if schema is None:
        return "no version was asked, so the log does not know its columns"
    if logged.hidden:
        return "the log does not hold the whole row: " + ", ".join(logged.hidden)
    return "rows of bytes are not asked again" if schema.input == "bytes" else ""


def _versions(registry: Registry, app: str, version: Version) -> list[tuple[str, Version]]:
    """Return whom to ask, in the order in which people care."""
    active, candidate = registry.app(app).active, registry.candidate(app)
    asked = [("answered", version)]
    asked += [("active", active)] if active is not None else []
    asked += [("candidate", candidate)] if candidate is not None else []
    asked += [("earlier", one) for one in registry.rollback_targets(app)]
    once: dict[int, tuple[str, Version]] = {}
    for role, one in asked:
        once.setdefault(one.id, (role, one))
    return list(once.values())[: _MOST_ASKED + 1]


def _answer(
    registry: Registry,
    role: str,
    version: Version,
    logged: Logged,
    settings: AppSettings | None,
) -> OtherAnswer:
    manifest = Manifest.from_json(version.manifest)
    missing = [name for name in manifest.schema.names if name not in logged.row]
    if missing:
        problem = f"it takes columns that the row does not have: {', '.join(missing)}"
        return OtherAnswer(version=version.name, role=role, problem=problem)
    row: Any = [logged.row[name] for name in manifest.schema.names]
    limits: dict[str, float] = {}
    if settings is not None:
        limits = {
            "memory_mib": settings.model.memory_mib,
            "wall_s": settings.model.wall_limit_s + settings.rollout.load_timeout,
        }
    try:
        path = registry.artifacts.get(manifest.model_sha256)
        rows = row if manifest.schema.input == "strings" else [row]
        answers = predict_in_child(manifest, path, rows, **limits)
    except MlguardError as error:
        return OtherAnswer(version=version.name, role=role, problem=error.message)
    if not bool(answers.valid[0]):
        return OtherAnswer(version=version.name, role=role, problem=answers.reasons.get(0, ""))
    if settings is not None and settings.app.groups_affect_decisions and settings.app.keys:
        groups: Mapping[str, Sequence[Any]] = {key: [it] for key, it in logged.groups.items()}
        answers = by_group(
            answers, manifest.schema.classes, version.manifest.get("thresholds", {}), groups
        )
    scores = answers.scores
    score = float(scores[0]) if scores is not None and scores.ndim == 1 else None
    return OtherAnswer(version=version.name, role=role, output=answers.outputs()[0], score=score)
