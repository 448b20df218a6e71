"""Great Expectations suites as checks: one item per expectation, each file validated once.

A suite is Great Expectations' own JSON, so a team's suites work unchanged, those of its older
releases too (``expectation_type`` instead of ``type``).  It is run on ``[data] test`` and, where
there is one, on ``[data] train``; an expectation holds if it holds on both.

Traps that this module is made around: importing Great Expectations takes seconds of CPU, so it
happens when the first expectation is judged; an absent column is no error there but a failed
result with an exception inside; one expectation of an unknown type refuses a suite whole, so
each is built alone; results hold numpy scalars and samples of the data, of which neither
belongs into a result; its progress bars write to stderr.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.checks.declaration import Declaration, Item, distinct, policy_of
from mlguard.checks.evidence import Subject
from mlguard.checks.labels import nearest
from mlguard.config import AppSettings, CheckPolicy
from mlguard.errors import UsageError
from mlguard.results import Enforcement, Finding, Measurement, Verdict
from mlguard.wording import count, listed, number, printable, share

if TYPE_CHECKING:
    import pandas as pd

#: What Great Expectations' severities make of a failed expectation.
_SEVERITY = {
    "critical": None,
    "warning": Enforcement.WARN,
    "info": Enforcement.DRY_RUN,
}
#: Results come in another order than expectations; this finds them again.
_PLACE = "mlguard_place"
#: Most failing rows that are listed by their id.
_MOST_ROWS = 10_000


@dataclass(frozen=True)
class Suite:
    """One suite file: its name and its expectations in one shape."""

    name: str
    expectations: tuple[dict[str, Any], ...]


def read_suite(path: Path) -> Suite:
    """Read a suite of Great Expectations, of today's or of the older shape.

    Parameters
    ----------
    path : Path
        JSON file.

    Returns
    -------
    Suite
        Each expectation has ``type`` and ``kwargs``.

    Raises
    ------
    UsageError
        If it is no suite, or holds no expectation: an empty suite would pass vacuously.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} is no JSON: {error}", hint="save the suite again, or move the file away"
        ) from error
    written = document.get("expectations") if isinstance(document, dict) else None
    if not isinstance(written, list):
        raise UsageError(
            f"{path} is no suite of Great Expectations: it has no list of expectations",
            hint='a suite is {"name": …, "expectations": [{"type": …, "kwargs": {…}}]}',
        )
    name = document.get("name") or document.get("expectation_suite_name") or path.stem
    return suite_of(written, name=str(name), where=str(path))


def suite_of(written: Sequence[Any], *, name: str = "suite", where: str = "the suite") -> Suite:
    """Return a list of expectations as a suite.

    Raises
    ------
    UsageError
        If it is empty, or one of them has no type.
    """
    if not written:
        raise UsageError(
            f"{where} holds no expectation, and nothing passes vacuously",
            hint="add expectations to it, or delete it",
        )
    return Suite(name, tuple(_one(where, place, one) for place, one in enumerate(written)))


def _one(where: str, place: int, written: object) -> dict[str, Any]:
    kind = None
    if isinstance(written, Mapping):
        kind = written.get("type") or written.get("expectation_type")
    if not isinstance(written, Mapping) or not isinstance(kind, str):
        raise UsageError(
            f"expectation {place + 1} of {where} has no type",
            hint='write it as {"type": "expect_…", "kwargs": {…}}',
        )
    known = {key: written[key] for key in ("kwargs", "meta", "severity") if written.get(key)}
    return {"type": kind, "kwargs": {}, **known}


def declare_expectations(settings: AppSettings, project_root: Path) -> Declaration:
    """Declare one item per expectation of the suites that the settings name."""
    gate = settings.gate.data_quality
    policy = policy_of(gate, "expectations")
    if not policy.enabled:
        return Declaration(not_applicable=("data_quality.expectations: switched off in app.toml",))
    pattern = gate.suite.replace("{app}", settings.name).replace("<app>", settings.name)
    files = sorted(project_root.glob(pattern))
    if not files:
        return Declaration(not_applicable=(f"data_quality.expectations: no suite in {pattern}",))
    items: list[Item] = []
    for file in files:
        try:
            suite = read_suite(file)
        except UsageError as error:
            items.append(
                Item(
                    id="data_quality.expectations",
                    subject=file.name,
                    policy=policy,
                    parameters={"raised": error},
                )
            )
            continue
        items += expectation_items(suite, policy, file=file)
    return Declaration(items=distinct(items))


def expectation_items(suite: Suite, policy: CheckPolicy, *, file: Path | None = None) -> list[Item]:
    """Return one item per expectation of a suite, its columns as the subject."""
    return [_item(suite, file, one, place, policy) for place, one in enumerate(suite.expectations)]


def _item(
    suite: Suite, file: Path | None, one: dict[str, Any], place: int, policy: CheckPolicy
) -> Item:
    kwargs = one["kwargs"]
    columns = [
        str(kwargs[key])
        for key in ("column", "column_A", "column_B")
        if isinstance(kwargs.get(key), str)
    ]
    columns += [str(name) for name in kwargs.get("column_list") or []]
    milder = _SEVERITY.get(str(one.get("severity", "critical")))
    if milder is not None and policy.enforcement is Enforcement.BLOCK:
        policy = policy.model_copy(update={"enforcement": milder})
    return Item(
        id=f"data_quality.{one['type']}",
        subject=", ".join(columns),
        policy=policy,
        parameters={"expectation": one, "suite": suite, "file": file, "place": place},
    )


class Suites:
    """Validates each suite once per data file, and hands out the outcomes one by one."""

    def __init__(self) -> None:
        # The subject is kept with its outcomes: an id alone may be given out again.
        self._outcomes: dict[tuple[int, Path], tuple[Subject, list[dict[str, Any]]]] = {}

    def finding(self, item: Item, subject: Subject) -> Finding:
        """Return what one expectation found on the data of a subject."""
        file: Path = item.parameters["file"]
        key = (id(subject), file)
        if key not in self._outcomes:
            parts = {"test": subject.test}
            if subject.train is not None:
                parts["train"] = subject.train
            data = subject.settings.data
            self._outcomes[key] = (
                subject,
                validate(
                    item.parameters["suite"].expectations,
                    parts,
                    failures_dir=subject.failures_dir,
                    row_id=data.id,
                    stem=file.stem,
                ),
            )
        outcome = self._outcomes[key][1][item.parameters["place"]]
        return judge_expectation(item.parameters["expectation"], outcome)


def validate(
    expectations: tuple[dict[str, Any], ...],
    frames: Mapping[str, pd.DataFrame],
    *,
    failures_dir: Path | None = None,
    row_id: str = "",
    stem: str = "expectations",
) -> list[dict[str, Any]]:
    """Run expectations on data.

    Parameters
    ----------
    expectations : tuple of dict
        Each with ``type`` and ``kwargs``.
    frames : mapping of str to pandas.DataFrame
        The data by what it is called, e.g. ``"test"``.
    failures_dir : Path, optional
        Where failing rows are listed by their id, one file per expectation and frame.
    row_id : str
        Column that identifies a row; empty: the 0-based row number.
    stem : str
        What those files' names start with.

    Returns
    -------
    list of dict
        For each expectation either ``{"broken": reason}``, or for each frame its outcome:
        ``success``, ``observed``, ``unexpected``, ``share``, ``rows``, ``missing_column``,
        ``raised``.
    """
    gx = great_expectations()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    outcomes: list[dict[str, Any]] = [{} for _ in expectations]
    ready: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place, one in enumerate(expectations):
            try:
                made = ExpectationConfiguration(
                    type=one["type"], kwargs=one["kwargs"], meta={_PLACE: place}
                ).to_domain_obj()
            except Exception as error:  # noqa: BLE001  many kinds, each means: cannot be built
                outcomes[place] = {"broken": _why_broken(one["type"], error)}
                continue
            ready.append(made)
        if not ready:
            return outcomes
        form: dict[str, Any] = {"result_format": "SUMMARY", "partial_unexpected_count": 0}
        if failures_dir is not None:
            form["result_format"] = "COMPLETE"
        batches = _batches(gx, frames)
        for part, batch in batches.items():
            # A suite keeps its expectations to itself.
            copies = [copy.copy(made) for made in ready]
            suite = gx.ExpectationSuite(name=f"mlguard {part}", expectations=copies)
            for result in batch.validate(suite, result_format=form).results:
                place = result.expectation_config.meta[_PLACE]
                outcomes[place][part] = _outcome(result, expectations[place], frames[part])
                if failures_dir is not None and not result.success:
                    file = failures_dir / f"{stem}-{place + 1}-{part}.csv"
                    _list_rows(result.result, frames[part], row_id, file, expectations[place])
    return outcomes


def great_expectations() -> Any:
    """Import Great Expectations, silent and offline, and return the module."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        # Deprecations inside it are its own business.
        warnings.simplefilter("ignore")
        import great_expectations as gx

    return gx


def _batches(gx: Any, frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("mlguard")
    return {
        part: source.add_dataframe_asset(part)
        .add_batch_definition_whole_dataframe("all")
        .get_batch(batch_parameters={"dataframe": frame})
        for part, frame in frames.items()
    }


def _outcome(result: Any, one: dict[str, Any], frame: pd.DataFrame) -> dict[str, Any]:
    found = result.result or {}
    absent = [name for name in _columns(one["kwargs"]) if name not in frame.columns]
    raised = "" if result.success else _exception(result.exception_info)
    unexpected = found.get("unexpected_count")
    return {
        "success": bool(result.success),
        "rows": len(frame),
        "judged": _integer(found.get("element_count")),
        "unexpected": _integer(unexpected),
        "share": _ratio(found.get("unexpected_percent")),
        "observed": _number(found.get("observed_value")),
        "missing_column": absent[0] if absent else "",
        "guess": nearest(absent[0], frame.columns) if absent else "",
        "raised": raised,
    }


def _columns(kwargs: Mapping[str, Any]) -> list[str]:
    named = [kwargs.get(key) for key in ("column", "column_A", "column_B")]
    named += kwargs.get("column_list") or []
    return [one for one in named if isinstance(one, str)]


def _exception(info: Any) -> str:
    """Find the message of an exception at any depth of an exception_info."""
    if not isinstance(info, Mapping):
        return ""
    if "raised_exception" in info:
        return str(info.get("exception_message") or "raised") if info["raised_exception"] else ""
    return next((text for one in info.values() if (text := _exception(one))), "")


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)


def _ratio(percent: Any) -> float | None:
    found = _number(percent)
    return None if found is None else found / 100


def _number(value: Any) -> float | None:
    """Return a finite number; anything else that was observed may be data and stays out."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _why_broken(kind: str, error: Exception) -> str:
    text = str(error).strip()
    if type(error).__name__ == "ExpectationNotFoundError" or "not found" in text.lower():
        return f"Great Expectations knows no {kind}"
    fields = re.findall(r"^(\w+)\n\s+(.+)$", text, flags=re.MULTILINE)
    if fields:
        return f"{kind} cannot be built: " + "; ".join(f"{key}: {why}" for key, why in fields[:3])
    return f"{kind} cannot be built: {text.splitlines()[0] if text else type(error).__name__}"


def judge_expectation(one: Mapping[str, Any], outcome: Mapping[str, Any]) -> Finding:
    """Turn the outcomes of one expectation on each data file into a finding.

    Parameters
    ----------
    one : mapping
        The expectation.
    outcome : mapping
        Its entry of :func:`validate`.

    Raises
    ------
    UsageError
        If the expectation could not be built, or raised on the data: it was not judged.
    """
    name = f"data_quality.{one['type']}"
    if "broken" in outcome:
        raise UsageError(outcome["broken"], hint="correct the expectation in its suite")
    parts: Mapping[str, Mapping[str, Any]] = outcome
    absent = {part: found for part, found in parts.items() if found["missing_column"]}
    if absent:
        part, found = next(iter(absent.items()))
        column = found["missing_column"]
        return Finding(
            id=name,
            subject=column,
            verdict=Verdict.FAILED,
            summary=f"the column {column!r} is not in {listed(sorted(map(_where, absent)))}"
            f"{found['guess']}",
            n=found["rows"],
            reason="missing_column",
            next_step=f"correct {_where(part)}, or the column's name in the suite",
        )
    bad = {part: found for part, found in parts.items() if not found["success"]}
    for part, found in bad.items():
        if found["raised"]:
            raise UsageError(
                f"{one['type']} raised on {_where(part)}: {printable(found['raised'])}",
                hint="correct the expectation in its suite, or the data",
            )
    part, found = next(iter((bad or parts).items()))
    told = "; ".join(f"{which}: {_told(what)}" for which, what in (bad or parts).items())
    expected = _expected(one)
    measurements = [
        Measurement(
            name="unexpected" if what["share"] is not None else "observed",
            group=_where(which),
            value=what["share"] if what["share"] is not None else what["observed"],
            n=what["judged"] if what["judged"] is not None else what["rows"],
        )
        for which, what in parts.items()
    ]
    return Finding(
        id=name,
        verdict=Verdict.FAILED if bad else Verdict.PASSED,
        summary=f"expected: {expected}; found in {told}" if bad else f"{expected} holds: {told}",
        value=found["share"] if found["share"] is not None else found["observed"],
        limit=_limit(one) if found["share"] is not None else None,
        n=found["judged"] if found["judged"] is not None else found["rows"],
        reason="unexpected" if bad else "",
        next_step=f"correct {_where(part)}, or the expectation if it asks too much" if bad else "",
        measurements=tuple(measurements),
        details={
            "unexpected": {which: what["unexpected"] for which, what in parts.items()},
        },
    )


def _where(part: str) -> str:
    """Return what a part of the data is called: a key of app.toml, or what was handed in."""
    return f"[data] {part}" if part in ("test", "train") else "the frame"


def _limit(one: Mapping[str, Any]) -> float | None:
    """Return the share of unexpected values that an expectation allows."""
    mostly = one["kwargs"].get("mostly", 1.0)
    return round(1.0 - mostly, 12) if isinstance(mostly, int | float) else None


def _told(found: Mapping[str, Any]) -> str:
    if found["unexpected"] is not None:
        of = found["judged"] if found["judged"] is not None else found["rows"]
        if not found["unexpected"]:
            return f"all {count(of)} values as expected"
        unexpected = count(found["unexpected"])
        return f"{unexpected} of {count(of)} values unexpected ({share(found['share'])})"
    if found["observed"] is not None:
        return f"observed {number(found['observed'])}"
    return "as expected" if found["success"] else "not as expected"


def _expected(one: Mapping[str, Any]) -> str:
    """Write an expectation as people say it: its type in words, and what it is held to."""
    words = str(one["type"]).removeprefix("expect_").replace("_", " ")
    kwargs = {
        key: value
        for key, value in one["kwargs"].items()
        if key not in ("column", "column_A", "column_B", "column_list") and value is not None
    }
    told = ", ".join(f"{key} = {printable(_short(value), 60)}" for key, value in kwargs.items())
    return f"{words} ({told})" if told else words


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 5:  # more do not fit a line
        return f"{len(value)} values"
    return json.dumps(value, default=str, ensure_ascii=False)


def _list_rows(
    found: Any, frame: pd.DataFrame, row_id: str, file: Path, one: Mapping[str, Any]
) -> None:
    """Write the ids of the rows that broke an expectation; never their values."""
    from mlguard.checks.failing_rows import write_rows

    places = (found or {}).get("unexpected_index_list") or []
    if not places:
        return
    known = bool(row_id) and row_id in frame.columns
    ids = [frame[row_id].iloc[place] if known else place for place in places[:_MOST_ROWS]]
    write_rows(file, ids, ", ".join(_columns(one["kwargs"])), str(one["type"]))
