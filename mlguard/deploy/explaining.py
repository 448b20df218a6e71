"""Why a metric got worse: since when, which inputs moved, and what explains how much of it.

The rows that an alarm rests on are compared with those of the same version before them:

* *features*: the distance of each input from the version's reference, with its interval;
* *parts*: how much of the rise of the mean loss comes with other inputs, with other classes,
  with inputs that nobody had seen, and how much with neither (:mod:`mlguard.stats.shift`);
* *segments*: values of the inputs that moved most, and groups, each with its share of the rise.

The document holds aggregates only.  A segment with fewer than :data:`SMALL` rows on a side is
pooled with others, so that no figure points at a person; example rows are read from the
prediction log when somebody looks, so retention, redaction and erasure hold for them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from mlguard.config import AppSettings
from mlguard.data.joint import class_name
from mlguard.monitors.losses import reference_scale, row_losses
from mlguard.monitors.window import WindowData, window_data
from mlguard.results import MonitorResult
from mlguard.stats.shift import PARTS, Share, segment_parts, shift_parts
from mlguard.wording import estimate, moment, number, share

if TYPE_CHECKING:
    from mlguard.data.prediction_log import PredictionLog
    from mlguard.deploy.watch_labels import Labels

#: Labelled rows that each side needs before a rise is taken apart.
LEAST = 30
#: Rows of a segment below which it is told with others only.
SMALL = 10
#: Rows before the change that are read at most, and labels looked through for them.
MOST_BEFORE, MOST_LABELS = 2000, 6000
#: Features and segments that are told.
TOLD = 8
#: Inputs that make up the cells of the decomposition.
_CELL_FEATURES = 2
_BINS = 4

IntArray = npt.NDArray[np.int64]
#: What an alarm's rows are compared with: what callers sent before, or ``[data] test``.
Source = Literal["earlier", "test"]


class Judges(Protocol):
    """What is needed of the monitor of the inputs."""

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Judge a window of rows."""


def rows_before(
    log: PredictionLog,
    labels: Labels,
    app: str,
    after: WindowData,
    *,
    version_id: int,
    window_s: float,
) -> WindowData | None:
    """Return rows that the same version answered before others, labelled ones if there are any.

    Parameters
    ----------
    log, labels
        Where answers and labels are.
    app : str
        Whose.
    after : WindowData
        What an alarm rests on.
    version_id : int
        The version.
    window_s : float
        How far back rows without labels are looked for, in seconds.
    """
    start = float(after.time.min())
    last = labels.cursor_at(np.finfo(float).max)
    known = labels.after(max(0, last - MOST_LABELS), MOST_LABELS)
    ids = [one.query_id for one in known]
    where: dict[str, Any] = {"version_id": version_id, "until": start}
    table = log.read(app, query_ids=ids, **where) if ids else None
    if table is None or not table.num_rows:
        table = log.read(app, since=start - window_s, **where)
    if not table.num_rows:
        return None
    table = table.slice(max(0, table.num_rows - MOST_BEFORE))
    found = window_data(table, version=after.version, labels={one.query_id: one for one in known})
    return found.take(~np.isin(found.query_id, after.query_id))


def explain_alarm(
    settings: AppSettings,
    reference: Mapping[str, Any],
    drift: Judges | None,
    *,
    before: WindowData | None,
    after: WindowData,
    since: float,
    compared_with: Source = "earlier",
) -> dict[str, Any]:
    """Explain why a version got worse, as JSON values.

    Parameters
    ----------
    settings : AppSettings
        The app's.
    reference : mapping
        Of the version: its loss tells the scale.
    drift : Judges or None
        The monitor of the inputs; None: nothing is said of them.
    before, after : WindowData
        Rows before the change, None where there are none, and rows that the alarm rests on.
    since : float
        When it changed, as far as is known, in seconds since the epoch.
    compared_with : {"earlier", "test"}
        What the rows before are: what callers sent, or ``[data] test``.

    Returns
    -------
    dict
        ``since, window, n_before, n_after, compared_with, features, loss`` (None where rows or
        labels are too few; then ``why_not`` says so), ``segments`` and ``said``, the gist in
        sentences.
    """
    features = _features(drift, after, settings)
    document: dict[str, Any] = {
        "since": since,
        "window": {
            "start": float(after.time.min()),
            "end": float(after.time.max()),
            "generation": after.generation,
        },
        "n_before": 0 if before is None else len(before),
        "n_after": len(after),
        "compared_with": compared_with,
        "features": features,
        "loss": None,
        "segments": [],
        "why_not": "",
    }
    old = judged_rows(before, settings, reference)
    new = judged_rows(after, settings, reference)
    if old is None or new is None or min(len(old.loss), len(new.loss)) < LEAST:
        n = [0 if one is None else len(one.loss) for one in (old, new)]
        document["why_not"] = (
            f"{n[0]} labelled rows before the change and {n[1]} since; {LEAST} of each are needed"
        )
    else:
        moved = [one["feature"] for one in features if one["feature"] in old.rows.columns]
        document["loss"] = _parts(old, new, moved[:_CELL_FEATURES], settings)
        document["segments"] = _segments(old, new, moved, settings)
    document["said"] = _said(document)
    return document


# --- what moved --------------------------------------------------------------------------


def _features(
    drift: Judges | None, after: WindowData, settings: AppSettings
) -> list[dict[str, Any]]:
    """Return each input's furthest distance in terms of what is tolerated, worst first."""
    table = settings.monitor.data_drift
    tolerated = {"ks": table.ks, "psi": table.psi, "share_increase": table.missing}
    told: list[dict[str, Any]] = []
    for result in [] if drift is None else drift.judge(after):
        for one in result.measurements:
            statistic, _, what = one.name.partition(" ")
            if one.value is None or statistic not in tolerated:
                continue
            told.append(
                {
                    "feature": one.group,
                    "statistic": statistic,
                    "what": what,
                    "value": one.value,
                    "interval": None if one.low is None else [one.low, one.high],
                    "tolerated": tolerated[statistic],
                    "n": one.n,
                }
            )
    told.sort(key=lambda figure: -figure["value"] / figure["tolerated"])
    furthest: dict[str, dict[str, Any]] = {}
    for figure in told:
        furthest.setdefault(figure["feature"], figure)
    return list(furthest.values())[:TOLD]


# --- how much of the rise ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows with a loss, and the loss of each: an array of shape (n_rows,)."""

    rows: WindowData
    loss: npt.NDArray[np.float64]


def judged_rows(
    rows: WindowData | None, settings: AppSettings, reference: Mapping[str, Any]
) -> Judged | None:
    """Return the rows that have a loss, and inputs to tell them apart by; None without rows."""
    if rows is None or not len(rows):
        return None
    loss, judged = row_losses(rows, task=settings.app.task, scale=reference_scale(reference))
    judged &= rows.inputs_kept
    return Judged(rows.take(judged), loss[judged])


@dataclass(frozen=True, slots=True)
class _Coded:
    """A column as codes on the grid of the rows before."""

    names: tuple[str, ...]
    before: IntArray
    after: IntArray


def _parts(old: Judged, new: Judged, cells: Sequence[str], settings: AppSettings) -> dict[str, Any]:
    bins = int(np.clip((len(old.loss) / 10) ** (1 / max(1, len(cells))), 2, _BINS))
    one_cell = _Coded(
        ("all",), np.zeros(len(old.loss), np.int64), np.zeros(len(new.loss), np.int64)
    )
    codes = _joint([one_cell, *(_coded(name, old, new, bins=bins) for name in cells)])
    kinds = _classes(old, new, settings)
    found = shift_parts(
        old.loss,
        new.loss,
        cell_before=codes.before,
        cell_after=codes.after,
        class_before=kinds.before,
        class_after=kinds.after,
    )
    return {
        "before": found.before,
        "after": found.after,
        "n_before": found.n_before,
        "n_after": found.n_after,
        "change": _share(found.change),
        "parts": {name: _share(getattr(found, name)) for name in PARTS},
        "inputs_alone": found.inputs_alone,
        "classes_alone": found.classes_alone,
        "cells": list(cells),
    }


def _share(one: Share) -> dict[str, Any]:
    return {"value": one.value, "interval": [one.interval.low, one.interval.high]}


def _joint(parts: Sequence[_Coded]) -> _Coded:
    """Return one code for each combination of codes."""
    first, *rest = parts
    for one in rest:
        size = len(one.names)
        first = _Coded(
            tuple(f"{a}, {b}" for a in first.names for b in one.names),
            first.before * size + one.before,
            first.after * size + one.after,
        )
    return first


def _coded(name: str, old: Judged, new: Judged, *, bins: int = _BINS) -> _Coded:
    return _grid(name, old.rows.columns[name], new.rows.columns[name], bins=bins)


def _classes(old: Judged, new: Judged, settings: AppSettings) -> _Coded:
    if settings.app.task == "regression":
        before, after = (
            np.array([float(one) for one in rows.label]) for rows in (old.rows, new.rows)
        )
        return _grid("label", before, after, bins=_BINS)
    named = [[class_name(one) for one in rows.label] for rows in (old.rows, new.rows)]
    names = tuple(sorted({*named[0], *named[1]}))
    codes = [np.array([names.index(one) for one in side], np.int64) for side in named]
    return _Coded(names, *codes)


def _grid(name: str, before: npt.NDArray[Any], after: npt.NDArray[Any], *, bins: int) -> _Coded:
    """Return codes on the quantiles, or the values, of the rows before."""
    if object in (before.dtype, after.dtype):
        return _categories(name, before, after, most=bins + 2)
    finite = before[np.isfinite(before)].astype(float)
    if not finite.size:
        return _categories(name, before.astype(object), after.astype(object), most=bins)
    inner = np.unique(np.quantile(finite, np.arange(1, bins) / bins, method="lower"))
    edges = np.unique([*inner[inner < finite.max()], finite.max()])
    low, missing = 0, len(edges) + 2
    names = [f"{name} < {number(float(finite.min()))}"]
    names += [
        f"{name} ≤ {number(float(high))}"
        if place == 0
        else f"{number(float(edges[place - 1]))} < {name} ≤ {number(float(high))}"
        for place, high in enumerate(edges)
    ]
    names += [f"{name} > {number(float(edges[-1]))}", f"{name} missing"]

    def codes(values: npt.NDArray[Any]) -> IntArray:
        numbers = values.astype(float)
        found = 1 + np.searchsorted(edges, numbers, side="left")
        found[numbers < finite.min()] = low
        found[np.isnan(numbers)] = missing
        return found.astype(np.int64)

    return _Coded(tuple(names), codes(before), codes(after))


def _categories(
    name: str, before: npt.NDArray[Any], after: npt.NDArray[Any], *, most: int
) -> _Coded:
    texts = [
        # NaN is the one value that differs from itself.
        ["missing" if one is None or one != one else str(one) for one in side]
        for side in (before, after)
    ]
    counted = sorted(set(texts[0]), key=lambda one: (-texts[0].count(one), one))
    kept, rare = counted[:most], set(counted[most:])
    names = (*(f"{name}={one}" for one in kept), f"{name}: rare values", f"{name}: new values")
    place = {one: at for at, one in enumerate(kept)} | dict.fromkeys(rare, len(kept))
    codes = [np.array([place.get(one, len(kept) + 1) for one in side], np.int64) for side in texts]
    return _Coded(names, *codes)


def _segments(
    old: Judged, new: Judged, moved: Sequence[str], settings: AppSettings
) -> list[dict[str, Any]]:
    attributes = dict.fromkeys([*settings.data.sensitive, *settings.monitor.fairness.by])
    groups = []
    for attribute in attributes:
        sides = [one.rows.attribute(attribute) for one in (old, new)]
        # Where nobody names the group there is nothing to tell apart.
        if all(any(one is not None for one in side) for side in sides):
            groups.append(_categories(attribute, *sides, most=_BINS + 2))
    columns = [_coded(name, old, new) for name in moved[:TOLD]]
    crossed = [_joint([columns[0], one]) for one in groups] if columns else []
    told = [one for coded in (*columns, *groups, *crossed) for one in _of_column(coded, old, new)]
    told.sort(key=lambda one: -one["value"])
    return [one for one in told if one["value"] > 0][:TOLD]


def _of_column(coded: _Coded, old: Judged, new: Judged) -> list[dict[str, Any]]:
    size = len(coded.names)
    n_before = np.bincount(coded.before, minlength=size)
    n_after = np.bincount(coded.after, minlength=size)
    # What is new may have no row before; what has a few on a side is told with others.
    small = (n_after < SMALL) | ((n_before < SMALL) & (n_before > 0))
    pooled = np.where(small, size, np.arange(size))
    found = segment_parts(
        old.loss,
        new.loss,
        segment_before=pooled[coded.before],
        segment_after=pooled[coded.after],
    )
    return [
        {
            "segment": coded.names[one.place],
            "value": one.share.value,
            "interval": [one.share.interval.low, one.share.interval.high],
            "mix": one.mix,
            "own": one.own,
            "n_before": one.n_before,
            "n_after": one.n_after,
            "loss_before": one.loss_before,
            "loss_after": one.loss_after,
        }
        for one in found
        if one.place < size
    ]


# --- in words ----------------------------------------------------------------------------

_DISTANCES = {"ks": "KS distance", "psi": "PSI", "share_increase": "rise of the share"}
_WORDS = {
    "covariate": "other inputs",
    "label": "other classes",
    "concept": "the same inputs and classes answered worse",
    "unseen": "inputs unlike any before",
}


def _said(document: Mapping[str, Any]) -> list[str]:
    """Say the gist, at most four sentences."""
    said = [f"Since about {moment(document['since'])}."]
    loss = document["loss"]
    if loss is not None:
        change = loss["change"]["value"]
        told = [
            f"{number(one['value'])} {_WORDS[name]}"
            for name, one in sorted(loss["parts"].items(), key=lambda part: -part[1]["value"])
            if abs(one["value"]) >= max(0.005, 0.05 * abs(change))
        ]
        on_test = " on the test data" if document["compared_with"] == "test" else ""
        said.append(
            f"Mean loss went from {number(loss['before'])}{on_test} to {number(loss['after'])}: "
            f"{', '.join(told) or 'no part stands out'}."
        )
    if document["features"]:
        first = document["features"][0]
        what = _DISTANCES[first["statistic"]] + (f" of {first['what']}" if first["what"] else "")
        said.append(
            f"Of the inputs {first['feature']} moved furthest: {what} "
            f"{estimate(first['value'], first['interval'], first['n'])}, "
            f"tolerated {number(first['tolerated'])}."
        )
    if document["segments"] and loss["change"]["value"] > 0:
        worst = document["segments"][0]
        part = worst["value"] / loss["change"]["value"]
        said.append(f"{share(min(part, 1.0))} of the rise lies where {worst['segment']}.")
    return said
