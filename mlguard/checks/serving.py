"""The family ``serving``: what answering costs, and whether the server says what the model says.

Budgets for latency, bytes and inputs; and training-serving skew:
test rows are sent through the real HTTP server, and its answers are compared with the model's
own (rule 29 and 37 of Zinkevich's *Rules of Machine Learning*).  Only what ``[gate.serving]``
declares is an item.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.checks.declaration import Declaration, Item, from_finding
from mlguard.checks.evidence import Subject
from mlguard.checks.labels import attribute
from mlguard.checks.requests import as_json, request_rows
from mlguard.config import (
    AppSettings,
    CheckPolicy,
    FeaturesRule,
    LatencyRule,
    ServingGate,
    SizeRule,
    SkewRule,
)
from mlguard.errors import UsageError
from mlguard.results import CheckResult, Finding, Measurement, Verdict
from mlguard.wording import count, estimate, number

if TYPE_CHECKING:
    import httpx
    import pandas as pd

    from mlguard.models.bundle import Runtime

_BATCH = 50
_MIB = 2**20
_NAMED = 10
#: What a latency is of, where it is not of the model's own file.
_ASKED: dict[Runtime, str] = {
    "original": "",
    "linear": "; compiled, as it will serve",
    "onnx": "; compiled to ONNX, as it will serve",
}


class Serving:
    """Whether the candidate keeps its budgets, and the server answers as the model does."""

    def declare(self, settings: AppSettings, project_root: Path) -> Declaration:  # noqa: ARG002
        """Declare one item per table of ``[gate.serving]``."""
        items, absent = [], []
        for check, rule in _declared(settings.gate.serving):
            if rule.enabled:
                items.append(Item(id=f"serving.{check}", policy=rule))
            else:
                absent.append(f"serving.{check}: switched off in app.toml")
        return Declaration(items=tuple(items), not_applicable=tuple(absent))

    def run(self, item: Item, subject: Subject) -> CheckResult:
        """Judge one budget, or the skew."""
        rule = item.policy
        if isinstance(rule, LatencyRule):
            took, runtime = measured_latency(subject, rule)
            found = judge_latency(took, rule, runtime)
        elif isinstance(rule, SizeRule):
            found = judge_size(subject.model_path.stat().st_size, rule)
        elif isinstance(rule, FeaturesRule):
            found = judge_features(subject.candidate.features, rule)
        else:
            assert isinstance(rule, SkewRule)
            found = find_skew(subject, rule)
        return from_finding(item, found)


def _declared(gate: ServingGate) -> Iterator[tuple[str, CheckPolicy]]:
    for check in ("latency", "size", "features", "skew"):
        rule = getattr(gate, check)
        if rule is not None:
            yield check, rule


def measured_latency(subject: Subject, rule: LatencyRule) -> tuple[list[float], Runtime]:
    """Return the milliseconds that single rows take in a process of their own, and what took them.

    What is asked is what a deployment would serve: the compiled model, where it is one.
    """
    from mlguard.models.isolation import run_in_child

    model = subject.settings.model
    found = run_in_child(
        "mlguard.checks.serving_budgets:measure_latency",
        {
            "root": str(subject.project.root),
            "app": subject.settings.name,
            "file": str(subject.model_path.resolve()),
            "rows": rule.rows,
        },
        memory_mib=model.memory_mib,
        wall_s=120 + model.wall_limit_s,
    )
    return found["took_ms"], found["runtime"]


def judge_latency(
    took_ms: list[float], rule: LatencyRule, runtime: Runtime = "original"
) -> Finding:
    """How long one row takes: the 99th percentile with its interval.

    Parameters
    ----------
    took_ms : list of float
        Milliseconds of single rows.
    rule : LatencyRule
        The largest 99th percentile.
    runtime : {"original", "linear", "onnx"}
        What was asked.
    """
    import numpy as np

    from mlguard.stats.decision import Support, judge_limit
    from mlguard.stats.quantiles import quantile_interval

    n = len(took_ms)
    p50, p99 = (float(one) for one in np.quantile(took_ms, [0.5, 0.99]))
    interval = quantile_interval(took_ms, 0.99, confidence_level=rule.confidence_level)
    judged = judge_limit(
        p99,
        interval,
        limit=rule.p99_ms,
        n=n,
        decide=rule.decide,
        confidence_level=rule.confidence_level,
        support=lambda: Support(enough=math.isfinite(interval.high), sizes=(n,)),
    )
    undecided = judged.verdict is Verdict.INCONCLUSIVE
    # So many rows that the slowest of them bounds the 99th percentile.
    needed = math.ceil(math.log((1 - rule.confidence_level) / 2) / math.log(0.99))
    says = f"1 row in 100 takes longer than {estimate(p99, interval, n, unit='ms')}"
    return Finding(
        id="serving.latency",
        verdict=judged.verdict,
        summary=f"{says}; limit {number(rule.p99_ms)} ms; the middle one {number(p50)} ms"
        f"{_ASKED[runtime]}"
        + ("; undecided: so few rows do not bound the slowest hundredth" if undecided else ""),
        value=p99,
        limit=rule.p99_ms,
        interval=interval,
        n=n,
        reason=judged.reason,
        next_step=""
        if judged.verdict is Verdict.PASSED
        else f"measure on at least {count(needed)} rows: [gate.serving.latency] rows = {needed}"
        if undecided and n < needed
        else "make the model smaller, or its features cheaper; measure on a quiet machine",
        details={"runtime": runtime},
        measurements=(
            Measurement(name="time", group="50 %", value=p50, n=n, unit="ms"),
            Measurement(
                name="time",
                group="99 %",
                value=p99,
                n=n,
                low=interval.low,
                high=interval.high,
                unit="ms",
            ),
        ),
    )


def judge_size(n_bytes: int, rule: SizeRule) -> Finding:
    """How large the model's file is.

    Parameters
    ----------
    n_bytes : int
        Of the file.
    rule : SizeRule
        The largest size.
    """
    size = n_bytes / _MIB
    passed = size <= rule.at_most_mib
    return Finding(
        id="serving.size",
        verdict=Verdict.PASSED if passed else Verdict.FAILED,
        summary=f"the model's file has {number(size)} MiB; limit {number(rule.at_most_mib)} MiB",
        value=size,
        limit=rule.at_most_mib,
        reason="" if passed else "limit_exceeded",
        next_step="" if passed else "train fewer or shallower trees, or drop features",
    )


def judge_features(features: list[str], rule: FeaturesRule) -> Finding:
    """How many inputs the model needs from every caller.

    Parameters
    ----------
    features : list of str
        Names of the inputs.
    rule : FeaturesRule
        The largest number.
    """
    n = len(features)
    passed = n <= rule.at_most
    return Finding(
        id="serving.features",
        verdict=Verdict.PASSED if passed else Verdict.FAILED,
        summary=f"the model needs {count(n)} inputs; limit {count(rule.at_most)}",
        value=float(n),
        limit=float(rule.at_most),
        reason="" if passed else "limit_exceeded",
        next_step="" if passed else "drop the inputs that add least",
    )


def find_skew(subject: Subject, rule: SkewRule) -> Finding:
    """Whether the server answers test rows as the model does offline.

    The rows go through the real HTTP server: parsed from JSON, batched, answered by the model's
    own process, written as JSON.  Every answer has to agree; a default output does not.

    Parameters
    ----------
    subject : Subject
        The candidate, its test rows, and the server to start.
    rule : SkewRule
        How many rows, and which difference of a regression's answers is ignored.

    Raises
    ------
    UsageError
        If nobody handed in a server to start.
    """
    if subject.serve is None:
        raise UsageError(
            "the answers of the server are compared, and this run has no server to start",
            hint="run it by pytest, mlguard check or mlguard deploy",
        )
    frame = subject.test.head(rule.rows)
    labels = subject.candidate.predict(frame).labels
    offline = [one.item() if hasattr(one, "item") else one for one in labels]
    sent = [as_json(one) for one in request_rows(frame, subject.manifest.schema)]
    groups = _groups(subject, frame)
    with subject.serve(subject) as client:
        answers = _asked(client, subject.settings.name, sent, groups)
    defaults = sum(bool(one["default"]) for one in answers)
    unlike = [
        place
        for place, (one, label) in enumerate(zip(answers, offline, strict=True))
        if one["default"] or not _same(one["output"], label, rule.tolerance)
    ]
    n = len(sent)
    because = next((str(one["default_explanation"]) for one in answers if one["default"]), "")
    summary = f"the server answers {count(n)} test rows as the model does offline"
    if unlike:
        summary = (
            f"the server answers {count(len(unlike))} of {count(n)} test rows otherwise than the "
            f"model does offline, first row {frame.index[unlike[0]]}"
        )
        if defaults:
            summary += f"; {count(defaults)} by the default output ({because})"
    return Finding(
        id="serving.skew",
        verdict=Verdict.FAILED if unlike else Verdict.PASSED,
        summary=summary,
        value=len(unlike) / n,
        limit=0.0,
        n=n,
        reason="limit_exceeded" if unlike else "identical",
        next_step="send one of these rows by hand and compare what reaches the model: a column "
        "that is computed twice is computed differently somewhere"
        if unlike
        else "",
        details={"rows": [str(frame.index[place]) for place in unlike[:1000]]}
        | (
            {"notes": ["rows: " + ", ".join(str(frame.index[one]) for one in unlike[:_NAMED])]}
            if unlike
            else {}
        ),
    )


def _groups(subject: Subject, frame: pd.DataFrame) -> list[dict[str, str]]:
    """Return what callers would say of each row's group, where an answer depends on it."""
    column = subject.settings.model.threshold_attribute
    if not column:
        return [{} for _ in range(len(frame))]
    return [{} if value is None else {column: str(value)} for value in attribute(frame, column)]


def _asked(
    client: httpx.Client, app: str, rows: list[Any], groups: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Send rows in batches of one group; return an answer for each, in order."""
    answers: list[dict[str, Any]] = [{}] * len(rows)
    by_group: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        by_group.setdefault(json.dumps(group), []).append(place)
    for group_text, places in by_group.items():
        for start in range(0, len(places), _BATCH):
            part = places[start : start + _BATCH]
            body: dict[str, Any] = {"input_batch": [rows[place] for place in part]}
            if group_text != "{}":
                body["groups"] = json.loads(group_text)
            reply = client.post(f"/{app}/predict", json=body)
            document = reply.json()
            if reply.status_code != 200:  # HTTP's own number
                refused = {"default": True, "default_explanation": document.get("cause", "")}
                found = [refused] * len(part)
            else:
                found = document.get("batch_predictions", [document])
            for place, one in zip(part, found, strict=True):
                answers[place] = one
    return answers


def _same(output: Any, label: Any, tolerance: float) -> bool:
    """Whether an answer says what the model said; a label that spells JSON is sent as JSON."""
    if isinstance(label, float) and isinstance(output, int | float):
        return abs(output - label) <= tolerance * max(1.0, abs(label))
    if output == label:
        return True
    try:
        return isinstance(label, str) and bool(json.loads(label) == output)
    except ValueError:
        return False
