"""Per-group figures: each metric that the gate or the monitor names, by each attribute.

Intervals and verdicts are those of :mod:`mlguard.stats.groups` over the whole period.  The
title says by how much two groups differ, never that something is fair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast, get_args

import numpy as np

from mlguard.config import AppSettings
from mlguard.reports.performance import losses
from mlguard.reports.traffic import Traffic, class_name, positive_class
from mlguard.reports.view import GroupChart, GroupFigure
from mlguard.results import Verdict
from mlguard.stats.groups import GapJudgement, judge_gap, judge_mean_gap
from mlguard.stats.rates import Confusion, RateMetric, group_losses
from mlguard.wording import SMALL_GROUP, estimate, number

#: Charts of one report, at most.
CHARTS = 8


def group_charts(
    settings: AppSettings, reference: Mapping[str, Any] | None, traffic: Traffic
) -> tuple[GroupChart, ...]:
    """Compare groups by every metric and attribute that is named.

    Parameters
    ----------
    settings : AppSettings
        ``[monitor.fairness]`` and ``[gate.fairness]`` name metrics and limits.
    reference : mapping or None
        Names the positive class.
    traffic : Traffic

    Returns
    -------
    tuple of GroupChart
        Worst verdict first; empty where no row says its group.
    """
    attributes = dict.fromkeys(
        [*settings.data.sensitive, *settings.monitor.fairness.by, *settings.gate.fairness.columns]
    )
    positive = positive_class(reference)
    found = []
    for attribute in attributes:
        groups = traffic.attribute(attribute)
        for metric, limit in _metrics(settings).items():
            chart = _chart(
                settings,
                traffic,
                groups,
                attribute=attribute,
                metric=metric,
                limit=limit,
                positive=positive,
            )
            if chart is not None:
                found.append(chart)
    found.sort(key=lambda one: -one.verdict.severity)
    return tuple(found[:CHARTS])


def _metrics(settings: AppSettings) -> dict[str, float]:
    """Return each metric with its limit; the monitor's own wins."""
    monitor, gate = settings.monitor.fairness, settings.gate.fairness
    if settings.app.task == "regression":
        limit = monitor.at_most if monitor.metric == "mean_absolute_error" else gate.at_most
        return {"mean_absolute_error": limit}
    named: dict[str, float] = {}
    if gate.aggregate == "difference":
        named = dict.fromkeys(gate.metrics, gate.at_most)
    named[monitor.metric] = monitor.at_most
    return {metric: limit for metric, limit in named.items() if metric in get_args(RateMetric)}


def _chart(
    settings: AppSettings,
    traffic: Traffic,
    groups: Any,
    *,
    attribute: str,
    metric: str,
    limit: float,
    positive: Any,
) -> GroupChart | None:
    known = np.array([one is not None for one in groups], dtype=bool)
    monitor = settings.monitor.fairness
    shared: dict[str, Any] = {
        "limit": limit,
        "min_group_size": monitor.min_group_size,
        "confidence_level": monitor.confidence_level,
        "family_error": monitor.family_error,
    }
    if metric == "mean_absolute_error":
        values, judged = losses(traffic, regression=True, scale=np.inf)
        judged &= known
        if not judged.any():
            return None
        gap = judge_mean_gap(group_losses(values[judged], groups[judged].astype(str)), **shared)
    else:
        used = known & ~traffic.default & traffic.valid
        if metric != "selection_rate":
            used &= traffic.labelled
        if not used.any() or (positive is None and metric != "accuracy"):
            return None
        predicted = np.array([class_name(one) for one in traffic.output[used]])
        true = (
            np.array([class_name(one) for one in traffic.label[used]])
            if metric != "selection_rate"
            else predicted
        )
        table = Confusion.count(
            true, predicted, groups[used].astype(str), positive=class_name(positive)
        )
        gap = judge_gap(table.rates(cast("RateMetric", metric)), **shared)
    return group_chart(gap, attribute, metric, limit)


def group_chart(gap: GapJudgement, attribute: str, metric: str, limit: float | None) -> GroupChart:
    """Return the forest plot of a gap; without a limit there is no band.

    Parameters
    ----------
    gap : GapJudgement
        The groups' estimates.
    attribute, metric : str
        What tells the groups apart, and what was measured.
    limit : float or None
        What groups may differ by.
    """
    figures = tuple(
        GroupFigure(group=one.name, value=None)
        if one.n < SMALL_GROUP
        else GroupFigure(group=one.name, value=one.value, low=one.low, high=one.high, n=one.n)
        for one in gap.groups
    )
    shown = [one.value for one in figures if one.value is not None]
    words = re.sub(r"^(true|false)_", r"\1-", metric).replace("_", " ")
    said = estimate(gap.value, gap.interval)
    judged = "" if limit is None else f", {gap.verdict.word}"
    alt = f"{words[0].upper()}{words[1:]} by {attribute}{judged}: " + "; ".join(
        f"{one.group} {estimate(one.value, (one.low, one.high), one.n)}"
        for one in figures
        if one.value is not None
    )
    return GroupChart(
        title=_title(gap, words, attribute),
        alt=f"{alt}. Difference {said}" + (f", limit {number(limit)}." if limit else "."),
        metric=metric,
        attribute=attribute,
        groups=figures,
        band=(min(shown), min(shown) + limit) if shown and limit else None,
        band_label=f"the {number(limit)} that groups may differ by" if limit else "",
        verdict=gap.verdict,
        summary=_summary(gap, limit),
    )


def _title(gap: GapJudgement, words: str, attribute: str) -> str:
    name = words[0].upper() + words[1:]
    if gap.value is None or gap.pair is None:
        return f"{name} by {attribute} cannot be compared yet"
    higher, lower = gap.pair
    return f"{name} is {number(gap.value)} higher for {higher} than for {lower}"


def _summary(gap: GapJudgement, limit: float | None) -> str:
    said = f"difference {estimate(gap.value, gap.interval)}"
    if limit is None:
        return said
    said += f", limit {number(limit)}"
    if gap.verdict is Verdict.INCONCLUSIVE and gap.n_needed:
        said += f"; about {number(float(gap.n_needed))} rows of each group would tell"
    return said
