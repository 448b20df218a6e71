"""Thresholds per group: the policies that are compared, and the rule that applies a table.

Four policies, each the best for whoever decides under its own rule:

``max_utility``
    one threshold for all;
``max_utility_per_group``
    the best threshold of each group, whatever it does to the others;
``demographic_parity``
    every group is answered yes equally often;
``equal_opportunity``
    of those whose truth is positive, every group is answered yes equally often.

The last two hold exactly on the rows they are chosen on: at the boundary a lot decides.  A
higher score is never treated worse than a lower one of the same group, so the lot is drawn
among people with the same score only.  (Mixing two thresholds far apart can gain a little
utility where success does not rise with the score; nobody could explain it to whom it hits.)

References
----------
Hardt, Price and Srebro (2016), Equality of opportunity in supervised learning, NeurIPS;
Liu, Dean, Rolf, Simchowitz and Hardt (2018), Delayed impact of fair machine learning, ICML.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray
from mlguard.stats.rates import group_codes
from mlguard.stats.score_table import ROUNDING, Cut, Operating, ScoreTable, Utility

__all__ = [
    "DEFAULT",
    "POLICIES",
    "Cut",
    "Operating",
    "Policy",
    "ScoreTable",
    "Utility",
    "attribute_of",
    "choose",
    "decide",
    "single_threshold",
]

Policy: TypeAlias = Literal[
    "max_utility", "max_utility_per_group", "demographic_parity", "equal_opportunity"
]
POLICIES: tuple[Policy, ...] = get_args(Policy)
#: Key of a threshold table for everybody whose group has no key of its own.
DEFAULT = "default"


# --- choosing ------------------------------------------------------------------------------


def choose(
    policy: Policy,
    groups: Mapping[str, ScoreTable],
    *,
    shares: Mapping[str, float],
    utility: Utility,
) -> dict[str, Cut]:
    """Return the cut of each group under a policy.

    Parameters
    ----------
    policy : str
        One of :data:`POLICIES`.
    groups : mapping of str to ScoreTable
        The groups.
    shares : mapping of str to float
        Share of each group in all people; their utilities are added up with it.
    utility : Utility
        What a yes is worth.  Of cuts that are worth the same, the highest is taken.

    Returns
    -------
    dict of str to Cut

    Raises
    ------
    UsageError
        If the policy is unknown, there is no group, or equal opportunity is asked for with a
        group that has no positives.

    Examples
    --------
    >>> a = ScoreTable.of_distribution([1, 2, 3], [0.2, 0.5, 0.3], [0.2, 0.6, 0.9])
    >>> b = ScoreTable.of_distribution([1, 2, 3], [0.6, 0.3, 0.1], [0.2, 0.6, 0.9])
    >>> half = {"a": 0.5, "b": 0.5}
    >>> cuts = choose("demographic_parity", {"a": a, "b": b}, shares=half, utility=Utility())
    >>> {name: cut.threshold for name, cut in cuts.items()}
    {'a': 2.8, 'b': 2.0}
    """
    if policy not in POLICIES:
        raise UsageError(f"unknown policy {policy!r}; known: {', '.join(POLICIES)}")
    if not groups:
        raise UsageError("no groups, so there are no thresholds to choose")
    if policy == "max_utility":
        best = single_threshold(groups, shares=shares, utility=utility)
        return dict.fromkeys(groups, best)
    if policy == "max_utility_per_group":
        return {
            name: one.cut(int(np.argmax(one.summed(utility.of(one.success)))))
            for name, one in groups.items()
        }
    if policy == "equal_opportunity":
        for name, one in groups.items():
            if one.base_rate <= 0:
                raise UsageError(
                    f"no row of {name} is positive, so equal opportunity says nothing about it",
                    hint="choose another policy, or leave that group out",
                )
    rates = {
        name: one.selection() if policy == "demographic_parity" else one.true_positives()
        for name, one in groups.items()
    }
    places = _equal_rates(groups, rates, shares, utility)
    return {name: one.cut(places[name]) for name, one in groups.items()}


def single_threshold(
    groups: Mapping[str, ScoreTable], *, shares: Mapping[str, float], utility: Utility
) -> Cut:
    """Return the one threshold for all that is worth most; the highest of several."""
    scores = np.concatenate([one.scores for one in groups.values()])
    worth = np.concatenate(
        [shares[name] * one.mass * utility.of(one.success) for name, one in groups.items()]
    )
    found, place = np.unique(-scores, return_inverse=True)
    total = np.concatenate([[0.0], np.cumsum(np.bincount(place, weights=worth))])
    best = int(np.argmax(total))
    return Cut.at(float(-found[best - 1]) if best else float("inf"))


def _equal_rates(
    groups: Mapping[str, ScoreTable],
    rates: Mapping[str, FloatArray],
    shares: Mapping[str, float],
    utility: Utility,
) -> dict[str, float]:
    """Return how far down each table to go so that all rates are one, and that the best one.

    Between two scores of any group the total utility is linear in the common rate, so the best
    rate is one at which some group takes a score whole.
    """
    candidates = np.unique(np.concatenate(list(rates.values())))
    total = np.zeros_like(candidates)
    places: dict[str, FloatArray] = {}
    for name, one in groups.items():
        rate, worth = rates[name], one.summed(utility.of(one.success))
        # The first place that reaches the rate: whatever follows at the same rate only costs.
        above = np.searchsorted(rate, candidates - ROUNDING)
        below = np.maximum(above - 1, 0)
        step = rate[above] - rate[below]
        part = np.divide(
            candidates - rate[below], step, out=np.zeros_like(candidates), where=step > 0
        )
        places[name] = below + np.minimum(part, 1.0)
        total += shares[name] * (worth[below] + part * (worth[above] - worth[below]))
    best = int(np.argmax(total))
    return {name: float(place[best]) for name, place in places.items()}


# --- applying ------------------------------------------------------------------------------


def attribute_of(thresholds: Mapping[str, float]) -> str:
    """Return the attribute that a threshold table distinguishes; empty where it is one for all.

    Parameters
    ----------
    thresholds : mapping of str to float
        ``"default"`` and any number of keys like ``"sex=F"``.

    Raises
    ------
    UsageError
        If there is no default, a key is no ``attribute=value``, or there are two attributes.

    Examples
    --------
    >>> attribute_of({"default": 0.5, "sex=F": 0.46})
    'sex'
    """
    if DEFAULT not in thresholds:
        raise UsageError(
            'a threshold table needs a key "default"',
            hint="it answers for everybody whose group is not given or has no key",
        )
    named = [key for key in thresholds if key != DEFAULT]
    unreadable = [key for key in named if not all(key.partition("="))]
    if unreadable:
        raise UsageError(
            f"{unreadable[0]!r} names no group", hint='write a key like "sex=F", or "default"'
        )
    attributes = sorted({key.partition("=")[0].strip() for key in named})
    if len(attributes) > 1:
        raise UsageError(
            f"thresholds by {' and by '.join(attributes)}: nobody could say which one holds for "
            "a person who is in both",
            hint="write the thresholds of one attribute",
        )
    return attributes[0] if attributes else ""


def decide(
    scores: npt.ArrayLike,
    thresholds: Mapping[str, float],
    groups: Mapping[str, npt.ArrayLike] | None = None,
) -> npt.NDArray[np.bool_]:
    """Answer yes from the threshold of each row's group.

    Parameters
    ----------
    scores : array_like of shape (n_rows,)
        Scores of the positive class; NaN is answered no.
    thresholds : mapping of str to float
        ``"default"`` and, for one attribute, keys like ``"sex=F"``.
    groups : mapping of str to array_like of shape (n_rows,), optional
        Each row's value of each attribute that is known.  A missing value, a value without a
        key and an attribute that was not given get the default.

    Returns
    -------
    ndarray of bool, shape (n_rows,)

    Raises
    ------
    UsageError
        If the table cannot be read, or scores and groups do not have the same length.

    Examples
    --------
    >>> table = {"default": 0.5, "sex=F": 0.4}
    >>> decide([0.45, 0.45, 0.45], table, {"sex": ["F", "M", None]}).tolist()
    [True, False, False]
    >>> decide([0.45, 0.55], table).tolist()
    [False, True]
    """
    values = np.asarray(scores, float)
    attribute = attribute_of(thresholds)
    known: Mapping[str, Any] = groups or {}
    limits = np.full(values.shape, float(thresholds[DEFAULT]))
    if attribute in known:
        names, codes = group_codes(known[attribute])
        if codes.shape != values.shape:
            raise UsageError(f"{codes.shape} groups for {values.shape} scores; one a row expected")
        by_value = {
            key.partition("=")[2].strip(): float(limit)
            for key, limit in thresholds.items()
            if key != DEFAULT
        }
        of_group = np.array([by_value.get(name, float(thresholds[DEFAULT])) for name in names])
        limits = of_group[codes] if names else limits
    return values >= limits
