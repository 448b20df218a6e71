"""Drift per feature: the period beside the data that the version was accepted on.

The distance, its interval and its verdict are those of :mod:`mlguard.stats.two_sample`, over
the whole period and with the tolerances of ``[monitor.data_drift]``; the picture is drawn from
the same counts, with neighbouring cells taken together until each is wide enough to be seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlguard.config import DataDriftMonitor
from mlguard.data.profile import SCORE, FeatureProfile
from mlguard.reports.traffic import Traffic
from mlguard.reports.view import DriftChart, FeatureDrift, Figure
from mlguard.stats.two_sample import DriftJudgement, judge_drift, judge_share_increase
from mlguard.wording import SMALL_GROUP, estimate, number, share

#: Cells of a drawn outline, at most; each is at least this share of the axis wide.
CELLS = 28
_MEASURES = {"ks": "KS", "psi": "PSI", "missing": "missing"}


def feature_drift(
    reference: Mapping[str, Any] | None, traffic: Traffic, settings: DataDriftMonitor
) -> tuple[FeatureDrift, ...]:
    """Judge every feature of a reference on the traffic of a period.

    Parameters
    ----------
    reference : mapping or None
        The reference document of the version; None where it has none.
    traffic : Traffic
    settings : DataDriftMonitor
        Tolerances and error rates.

    Returns
    -------
    tuple of FeatureDrift
        Largest distance, relative to its limit, first.  Empty where nothing can be compared.
    """
    known = ((reference or {}).get("profile") or {}).get("features") or {}
    kinds = (reference or {}).get("kinds") or {}
    columns = dict(traffic.columns)
    if SCORE in known and np.isfinite(traffic.score).any():
        columns.setdefault(SCORE, [traffic.score[~traffic.default]])
    shared = [name for name in known if name in columns]
    found = []
    for name in shared:
        before = FeatureProfile.from_json(known[name])
        kind = str(kinds.get(name, "number"))
        now = _summary(before, columns[name], kind)
        if now is not None and now.n_rows:
            found.append(_one(name, kind, before, now, settings=settings, n_features=len(shared)))
    return tuple(sorted(found, key=_order))


def _order(one: FeatureDrift) -> tuple[int, float]:
    value, limit = one.figure.value, one.figure.limit
    ratio = value / limit if value is not None and limit else 0.0
    return (-one.figure.verdict.severity if one.figure.verdict.value == "failed" else 0, -ratio)


def _summary(
    before: FeatureProfile, parts: Sequence[npt.NDArray[Any]], kind: str
) -> FeatureProfile | None:
    """Count the period's values on the reference's grid; None where they are no such values."""
    whole: FeatureProfile | None = None
    for part in parts:
        try:
            counted = before.summarise(_moments(part) if kind == "time" else part)
        except (TypeError, ValueError):
            return None
        whole = counted if whole is None else whole.merge(counted)
    return whole


def _moments(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn times as the log has them (text, UTC) into what a profile counts."""
    if part.dtype != object:
        return part
    texts = ["NaT" if one is None else str(one).removesuffix("Z").partition("+")[0] for one in part]
    return np.array(texts, dtype="datetime64[ns]")


def _one(
    name: str,
    kind: str,
    before: FeatureProfile,
    now: FeatureProfile,
    *,
    settings: DataDriftMonitor,
    n_features: int,
) -> FeatureDrift:
    shared: dict[str, Any] = {
        "n_features": n_features,
        "confidence_level": settings.confidence_level,
        "family_error": settings.family_error,
    }
    number_like = before.shape == "number"
    distance = judge_drift(
        before.counts,
        now.counts,
        statistic="ks" if number_like else "psi",
        tolerance=settings.ks if number_like else settings.psi,
        **shared,
    )
    missing = judge_share_increase(
        before.missing, before.n_rows, now.missing, now.n_rows, tolerance=settings.missing, **shared
    )
    worse = missing.verdict.severity > distance.verdict.severity
    judged = missing if worse else distance
    measure = "missing" if worse else distance.statistic
    figure = Figure(
        id=f"data_drift.{measure}",
        subject=name,
        verdict=judged.verdict,
        value=judged.value,
        limit=judged.limit,
        interval=None if judged.interval is None else (judged.interval.low, judged.interval.high),
        n=judged.n,
        n_min=judged.n_needed,
        summary=_summary_text(judged, measure, before, now),
    )
    return FeatureDrift(
        feature=name,
        kind=kind,
        measure=measure,
        figure=figure,
        missing_before=_share(before),
        missing_after=_share(now),
        chart=_chart(name, figure, measure, before, now),
    )


def _share(profile: FeatureProfile) -> float | None:
    found = profile.missing_share
    return None if math.isnan(found) else found


def _summary_text(
    judged: DriftJudgement, measure: str, before: FeatureProfile, now: FeatureProfile
) -> str:
    """Say what the number alone does not: missing values, unseen categories, too few rows."""
    said = []
    if measure == "missing":
        said.append(f"missing values rose from {share(_share(before))} to {share(_share(now))}")
    if now.shape == "category" and now.n and now.unseen_share > 0:
        said.append(f"{share(now.unseen_share)} of the values are new")
    if judged.n_needed and judged.n is not None and judged.n < judged.n_needed:
        said.append("too few rows to tell")
    return "; ".join(said)


def _chart(
    name: str, figure: Figure, measure: str, before: FeatureProfile, now: FeatureProfile
) -> DriftChart | None:
    if not before.n or not now.n:
        return None
    said = f"{_MEASURES[measure]} {estimate(figure.value, figure.interval)}"
    title = f"{name}: {said}, limit {number(figure.limit)}"
    alt = f"{name} before and now, {figure.verdict.word}: {said}, limit {number(figure.limit)}."
    if before.shape == "number" and not math.isnan(before.mean) and not math.isnan(now.mean):
        alt += f" Mean {number(before.mean)} before, {number(now.mean)} now."
    shape = _outline(before, now) if before.shape == "number" else _bars(before, now)
    if shape is None:
        return None
    return DriftChart(title=title, alt=alt, feature=name, verdict=figure.verdict, **shape)


def _outline(before: FeatureProfile, now: FeatureProfile) -> dict[str, Any] | None:
    """Return shares in cells wide enough to see; the outermost hold what lies beyond."""
    upper = before.edges
    if len(upper) < 2:  # one value has no outline
        return None
    low, high = float(upper[0]), float(upper[-1])
    # A single outlier must not press everything else into one cell.
    room = (high - low or abs(high) or 1.0) / 4
    first = max(min(low, now.low), low - room)
    last = min(max(high, now.high), high + room)
    edges = np.concatenate([[first], upper[1:-1], [last]])
    least = (last - first) / CELLS
    # The end of each run of neighbours that together are wide enough to be seen.
    ends = [0]
    for place in range(1, len(edges)):
        if edges[place] - edges[ends[-1]] >= least:
            ends.append(place)
    ends[-1] = len(edges) - 1
    if len(ends) < 2 or not first < last:  # one edge bounds no cell
        return None
    shares = []
    for profile in (before, now):
        inner = profile.counts[2:-1].astype(float)
        cells = np.concatenate([[profile.counts[:2].sum()], inner])
        cells[-1] += profile.counts[-1]
        shares.append(tuple((np.add.reduceat(cells, ends[:-1]) / profile.n).tolist()))
    return {"edges": tuple(edges[ends].tolist()), "reference": shares[0], "current": shares[1]}


def _bars(before: FeatureProfile, now: FeatureProfile) -> dict[str, Any]:
    """Return the share of each category; those of a few people are named together."""
    rare, new = "(rare values)", "(new values)"
    shares: dict[str, list[float]] = {}
    names = [*before.categories, rare, new]
    for name, a, b in zip(names, before.counts.tolist(), now.counts.tolist(), strict=True):
        shown = name if max(a, b) >= SMALL_GROUP or name == new else rare
        held = shares.setdefault(shown, [0.0, 0.0])
        held[0] += a / before.n
        held[1] += b / now.n
    rows = [(name, a, b) for name, (a, b) in shares.items() if a or b]
    rows.sort(key=lambda row: -max(row[1], row[2]))
    return {
        "labels": tuple(name for name, _, _ in rows),
        "reference": tuple(held for _, held, _ in rows),
        "current": tuple(held for _, _, held in rows),
    }
