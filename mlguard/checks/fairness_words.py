"""What a gap between groups is called: the sentences of the fairness checks.

They say what was measured ("differs by", "is refused more often"), of whom, on how many rows,
against which limit.  Whether a difference is acceptable is for people to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.groups import GapJudgement, GroupEstimate
from mlguard.stats.rates import DENOMINATORS
from mlguard.wording import (
    SMALL_GROUP,
    TOO_FEW_TO_SHOW,
    count,
    estimate,
    group_size,
    listed,
    number,
    printable,
)

#: What a higher value of a metric means to the people it is about.
MEANING = {
    "selection_rate": "{group} is answered {positive} more often",
    "true_positive_rate": "where the truth is {positive}, {group} is answered so more often",
    "false_positive_rate": "where the truth is not {positive}, {group} is answered {positive} "
    "more often",
    "false_negative_rate": "where the truth is {positive}, {group} is refused that answer "
    "more often",
    "true_negative_rate": "where the truth is not {positive}, {group} is rightly told so "
    "more often",
    "precision": "the answer {positive} is right more often for {group}",
    "accuracy": "{group} is answered correctly more often",
    "f1_score": "{positive} is found more completely, or with fewer false alarms, for {group}",
    "calibration_error": "the scores of {group} are further from how often {positive} comes true",
    "mean_prediction": "{group} is given higher scores",
    "mean_absolute_error": "the error is larger for {group}",
    "mean_residual": "{group} is predicted more, compared with what comes true",
    "demographic_parity": "{group} is answered {positive} more often",
    "equalized_odds": "{group} is answered {positive} more often, the truth being the same",
    "equal_opportunity": "where the truth is {positive}, {group} is answered so more often",
    "representation": "{group} is further from its stated share than any other group",
    "label_base_rate": "{positive} comes true more often for {group}",
    "missing_rate": "the value is missing more often for {group}",
}
#: Those of them that are about the data, whatever a model makes of it.
DATA_METRICS = frozenset({"representation", "label_base_rate", "missing_rate"})
#: Whom a denominator counts, where it is not rows and not one of the rates.
COUNTED: dict[str, str] = {
    **{str(metric): counted for metric, counted in DENOMINATORS.items()},
    "f1_score": "rows that are positive or predicted so",
    "equalized_odds": "positives, and negatives",
    "equal_opportunity": "positives",
}
#: Longest list of groups that a note names.
_NAMED = 12


@dataclass(frozen=True)
class Told:
    """What is being told about, for the sentences.

    Attributes
    ----------
    metric : str
        The metric asked for, e.g. ``"equalized_odds"``.
    measured : str
        What its numbers are, e.g. ``"true_positive_rate of yes"``.
    counted : str
        The metric whose denominator counts, e.g. ``"true_positive_rate"``.
    by : tuple of str
        The attributes.
    within : str
        The control group, e.g. ``"grade=3"``; empty for all rows.
    positive : str
        The class that counts as positive.
    limit : float
        What it is held against.
    to_overall : bool
        Whether groups are compared with everybody.
    """

    metric: str
    measured: str
    counted: str
    by: tuple[str, ...]
    limit: float
    within: str = ""
    positive: str = ""
    to_overall: bool = False

    @property
    def rows(self) -> str:
        """Whom the denominator counts."""
        return COUNTED.get(self.counted, "rows")

    @property
    def attribute(self) -> str:
        """How the attribute is called: ``sex``, or ``sex and race``."""
        return listed([printable(one, 60) for one in self.by])

    def group(self, name: str) -> str:
        """Return how a group is called: ``sex=F``."""
        return named(self.by, name)


def named(by: Sequence[str], group: str) -> str:
    """Return how a group is called; those of an intersection bear their columns already."""
    if len(by) > 1:
        return printable(group, 120)
    return f"{printable(by[0], 60)}={printable(group, 60)}"


def class_name(positive: Any) -> str:
    """Return how a class is called."""
    return str(printable(positive, 40))


def gap_finding(
    check: str, told: Told, judged: GapJudgement, *, min_group_size: int, listed_only: bool
) -> Finding:
    """Return a judged gap as a finding, with its words and numbers.

    Parameters
    ----------
    check : str
        Id of the check.
    told : Told
        What is being told about.
    judged : GapJudgement
        What was found.
    min_group_size : int
        Rows that a group's denominator needs.
    listed_only : bool
        Whether groups that cannot be decided are only listed.
    """
    return Finding(
        id=check,
        subject=",".join(told.by),
        verdict=judged.verdict,
        summary=summary(told, judged, min_group_size=min_group_size),
        value=judged.value,
        limit=told.limit,
        interval=None if judged.interval is None else (judged.interval.low, judged.interval.high),
        n=sum(one.n for one in judged.groups),
        n_min=judged.n_needed,
        reason=judged.reason,
        next_step=next_step(told, judged, min_group_size=min_group_size),
        measurements=measurements(told, judged),
        details={
            "notes": notes(told, judged, min_group_size=min_group_size, listed_only=listed_only),
            **details(told, judged),
        },
    )


def measurements(told: Told, judged: GapJudgement) -> tuple[Measurement, ...]:
    """Return the groups' numbers."""
    within = f" ({printable(told.within, 60)})" if told.within else ""
    return tuple(
        Measurement(
            name=told.measured,
            value=one.value,
            n=one.n,
            low=one.low,
            high=one.high,
            group=told.group(one.name) + within,
        )
        for one in judged.groups
    )


def notes(told: Told, judged: GapJudgement, *, min_group_size: int, listed_only: bool) -> list[str]:
    """Say which groups were not decided, and what that means."""
    found = []
    within = f" where {printable(told.within, 60)}" if told.within else ""
    if judged.too_small:
        found.append(
            f"undecided{within}: {_some(told, judged.too_small)} with fewer than "
            f"{min_group_size} {told.rows}; gather more such rows"
            + ("" if listed_only else ", or name the group in optional_groups")
        )
    if judged.left_out and listed_only:
        sizes = {one.name: one.n for one in judged.groups}
        found.append(
            f"undecided{within}, so listed and not held against the limit: "
            f"{_some(told, judged.left_out, sizes)} with too few {told.rows}; a group that must "
            "be decided is named in required_groups"
        )
    elif judged.left_out:
        found.append(
            "left out, because optional_groups names them: " + _some(told, judged.left_out)
        )
    return found


def _some(told: Told, groups: Sequence[str], sizes: Mapping[str, int] | None = None) -> str:
    texts = [
        told.group(one) + (f" ({group_size(sizes[one])})" if sizes is not None else "")
        for one in groups[:_NAMED]
    ]
    more = len(groups) - _NAMED
    return listed([*texts, f"{count(more)} more"] if more > 0 else texts)


def summary(told: Told, judged: GapJudgement, *, min_group_size: int) -> str:
    """Say in one sentence, or two, what was found."""
    groups = {one.name: one for one in judged.groups}
    compares = judged.aggregate in ("difference", "ratio")
    if len(groups) == 1 and compares:
        return f"{told.attribute} has only one group in the test rows: nothing can be compared"
    if judged.pair is None or judged.value is None:
        small = sorted(groups.values(), key=lambda one: one.n)[:_NAMED]
        sizes = listed([f"{told.group(one.name)} has {group_size(one.n)}" for one in small])
        verb = "compared" if compares else "judged"
        return (
            f"{told.measured}{_where(told)} cannot be {verb}: of {told.rows}, {sizes}; "
            f"each group needs {min_group_size}"
        )
    at_most = judged.bound == "at_most"
    text = (
        f"{_finding(told, judged, groups)}; limit {'at most' if at_most else 'at least'} "
        f"{number(told.limit)}"
    )
    more = qualification(told, judged)
    if judged.verdict is Verdict.FAILED:
        more = _sentence(told, judged, groups)
    return f"{text}. {more}" if more else text


def next_step(  # noqa: PLR0911 - one sentence a reason
    told: Told, judged: GapJudgement, *, min_group_size: int
) -> str:
    """Say what would help: more rows of the right kind, a better candidate, better data."""
    if judged.verdict is Verdict.FAILED:
        if told.metric in DATA_METRICS:
            return "look at how the groups' rows were gathered, and gather what is missing"
        return "compare the groups' rows and labels, and train a candidate that treats them alike"
    if len(judged.groups) == 1 and judged.aggregate in ("difference", "ratio"):
        return f"bring test rows of another group, or correct what {told.attribute} holds"
    each = f"{told.rows} of each group"
    if judged.reason == "no_support":
        needed = judged.n_needed
        return f"judge it on {'more' if needed is None else f'about {count(needed)}'} {each}"
    if judged.reason in ("few", "undefined"):
        return f"judge it on at least {min_group_size} {each}"
    if judged.reason == "above_not_proven":
        tell = judged.n_to_tell
        return f"{'more' if tell is None else f'about {count(tell)}'} {each} would tell"
    return ""


def _where(told: Told) -> str:
    return f" where {printable(told.within, 60)}" if told.within else ""


def _finding(told: Told, judged: GapJudgement, groups: Mapping[str, GroupEstimate]) -> str:
    pair = [groups[name] for name in judged.pair or ()]
    figures = "; ".join(
        f"{told.group(one.name)} "
        + (
            TOO_FEW_TO_SHOW
            if one.n < SMALL_GROUP
            else estimate(one.value, (one.low, one.high), one.n)
        )
        for one in pair
    )
    if judged.aggregate in ("group_min", "group_max"):
        end = "lowest" if judged.aggregate == "group_min" else "highest"
        return f"{told.measured} is {end}{_where(told)} for {figures}"
    interval = None if judged.interval is None else tuple(judged.interval)
    differs = "differs by" if judged.aggregate == "difference" else "has a ratio of"
    whom = (
        f"between {told.group(pair[0].name)} and everybody"
        if told.to_overall
        else f"between the groups of {told.attribute}"
    )
    value = estimate(judged.value, interval)
    return f"{told.measured} {differs} {value} {whom}{_where(told)}: {figures}"


def _sentence(told: Told, judged: GapJudgement, groups: Mapping[str, GroupEstimate]) -> str:
    """Say what a breach means to the people it is about."""
    if judged.aggregate in ("group_min", "group_max"):
        return ""
    name = (judged.pair or ("",))[0]
    group = told.group(name)
    if told.to_overall and not _above_everybody(judged, groups[name]):
        return f"{group} is below everybody in this"
    more = MEANING[told.metric].format(group=group, positive=told.positive)
    return more if more.startswith(group) else more[:1].upper() + more[1:]


def _above_everybody(judged: GapJudgement, group: GroupEstimate) -> bool:
    rows = sum(one.n for one in judged.groups)
    mean = sum((one.value or 0.0) * one.n for one in judged.groups) / rows if rows else 0.0
    return (group.value or 0.0) > mean


def qualification(told: Told, judged: GapJudgement) -> str:
    """Say what a verdict that is neither proven nor refuted leaves open."""
    at_most = judged.bound == "at_most"
    if judged.reason == "not_proven" and judged.interval is not None:
        far = judged.interval.high if at_most else judged.interval.low
        return f"Not proven: it could be {'up' if at_most else 'down'} to {number(far)}"
    if judged.reason == "above_not_proven":
        return "Beyond the limit, but not proven to be"
    if judged.reason == "few":
        sizes = {one.name: one.n for one in judged.groups}
        return f"Too few {told.rows} to judge {_some(told, judged.too_small, sizes)}"
    if judged.reason != "no_support":
        return ""
    kind = "tightest ratio" if judged.aggregate == "ratio" else "smallest limit"
    if judged.aggregate == "group_min":
        kind = "highest limit"
    smallest = (
        "no limit can be judged"
        if judged.smallest_limit is None
        else f"the {kind} this data can judge is {number(judged.smallest_limit)}"
    )
    each = " each" if len(judged.sizes) > 1 else ""
    needed = (
        "" if judged.n_needed is None else f"; the limit needs about {count(judged.n_needed)}{each}"
    )
    sizes_told = listed([group_size(one) for one in judged.sizes])
    return f"Undecided: with {sizes_told} {told.rows} {smallest}{needed}"


def details(told: Told, judged: GapJudgement) -> dict[str, Any]:
    """Return the numbers behind the words, as JSON values."""
    return {
        "pair": list(judged.pair or ()),
        "undecided": [told.group(one) for one in (*judged.too_small, *judged.left_out)],
        "smallest_limit": judged.smallest_limit,
        "n_needed": judged.n_needed,
        "n_to_tell": judged.n_to_tell,
        **({"positive": told.positive} if told.positive else {}),
        **({"within": told.within} if told.within else {}),
    }
