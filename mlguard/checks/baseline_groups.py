"""The comparison with a baseline in every group and slice, so that an average hides nobody.

Every part is compared by itself, with intervals that hold over all parts together
(``family_error``).  Each has to clear the line: one that does not fails the check, one that is
too small leaves it undecided unless ``optional_groups`` names it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlguard.checks.labels import attribute, nearest
from mlguard.checks.side_by_side import Answers, Comparison
from mlguard.config import SLICE
from mlguard.errors import DataError
from mlguard.results import Finding, Measurement, Verdict
from mlguard.stats.comparison import simultaneous_level
from mlguard.stats.decision import Judgement, judge_non_inferiority, judge_superiority
from mlguard.stats.interval import Interval
from mlguard.wording import SMALL_GROUP, TOO_FEW_TO_SHOW, count, estimate, number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: Subject of the checks that are about the named slices.
SLICES = "slices"


def parts_of(frame: pd.DataFrame, subject: str, slices: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the parts of some rows as boolean masks, by name.

    Parameters
    ----------
    frame : pandas.DataFrame of shape (n_rows, n_columns)
        The rows.
    subject : str
        A column, whose groups are the parts, or :data:`SLICES`.
    slices : mapping of str to str
        Conditions by the slice's name.

    Raises
    ------
    DataError
        If a column is not there, or a condition does not fit its values.
    """
    from mlguard.stats.rates import group_codes

    if subject == SLICES and slices:
        return {name: slice_mask(frame, text) for name, text in slices.items()}
    _known(frame, subject)
    names, codes = group_codes(attribute(frame, subject))
    return {f"{subject}={name}": codes == place for place, name in enumerate(names)}


def slice_mask(frame: pd.DataFrame, text: str) -> np.ndarray:
    """Return which rows a condition like ``"age < 30 and city = Ulm"`` holds for.

    A row in which the column is missing is in no slice of it.
    """
    import numpy as np
    from pandas.api import types

    mask: np.ndarray = np.ones(len(frame), bool)
    for part in text.split(" and "):
        found = SLICE.fullmatch(part)
        assert found is not None, "app.toml holds only readable conditions"
        column, sign, value = found["column"].strip(), found["sign"], found["value"].strip()
        _known(frame, column)
        values = frame[column]
        wanted: Any = value
        if types.is_numeric_dtype(values.dtype) and not types.is_bool_dtype(values.dtype):
            try:
                wanted = float(value)
            except ValueError:
                raise DataError(
                    f"the slice {text!r} compares {column!r}, which holds numbers, with {value!r}",
                    hint="write a number",
                ) from None
        elif sign in ("=", "!="):
            values = values.map(str, na_action="ignore")
        else:
            raise DataError(
                f"the slice {text!r} asks for an order of {column!r}, which holds no numbers",
                hint="compare it by = or !=",
            )
        compared = {
            "=": values.eq,
            "!=": values.ne,
            "<": values.lt,
            "<=": values.le,
            ">": values.gt,
            ">=": values.ge,
        }[sign](wanted)
        mask &= compared.fillna(value=False).to_numpy(bool) & frame[column].notna().to_numpy()
    return mask


def judge_groups(
    found: Answers,
    parts: Mapping[str, np.ndarray],
    *,
    check: str,
    limit: float,
    min_group_size: int,
    optional: Collection[str] = (),
    confidence_level: float = 0.95,
    family_error: float = 0.05,
) -> Finding:
    """Judge superiority, or non-inferiority, in every group of `by` and every one of `slices`.

    Parameters
    ----------
    found : Answers
        What the two models answered.
    parts : mapping of str to ndarray of bool
        Rows of each part.
    check : {"baseline.beats_in", "baseline.no_worse_in"}
        What is asked of each.
    limit : float
        What the lower bound of the gain has to lie above: ``delta``, or minus ``margin``.
    min_group_size : int
        Rows that a part needs.
    optional : collection of str
        Parts that may be undecided.
    confidence_level, family_error : float
        Of each interval at least, and over all parts.

    Returns
    -------
    Finding
        FAILED where a part is FAILED, else INCONCLUSIVE where one that is not optional is.
    """
    beating = check == "baseline.beats_in"
    level = simultaneous_level(confidence_level, family_error, len(parts))
    pairs = {name: found.of(mask).compare(level) for name, mask in parts.items() if mask.any()}
    empty = [name for name, mask in parts.items() if not mask.any()]
    judged = {
        name: _judge(pair, limit, beating=beating, few=pair.n < min_group_size)
        for name, pair in pairs.items()
    }
    failed = [name for name, one in judged.items() if one is Verdict.FAILED]
    open_ones = [
        name for name, one in judged.items() if one is Verdict.INCONCLUSIVE and name not in optional
    ]
    open_ones += [name for name in empty if name not in optional]
    decided = [name for name, one in judged.items() if one is not Verdict.INCONCLUSIVE]
    verdict = Verdict.PASSED
    if failed:
        verdict = Verdict.FAILED
    elif open_ones or not decided:
        verdict = Verdict.INCONCLUSIVE
    shown = failed or [name for name in open_ones if name in pairs] or list(pairs)
    worst = min(shown, key=lambda name: _gain(pairs[name])) if shown else ""
    pair = pairs.get(worst)
    few = pair is None or pair.n < min_group_size
    # Of a few people nothing but the group's name is told.
    told = None if pair is None or pair.n < SMALL_GROUP else pair
    return Finding(
        id=check,
        verdict=verdict,
        summary=_summary(
            found, verdict, worst, pair, n=len(failed or open_ones), limit=limit, beating=beating
        ),
        value=None if told is None else told.better,
        limit=limit,
        interval=None if told is None else told.interval,
        n=None if told is None else told.n,
        n_min=min_group_size if verdict is Verdict.INCONCLUSIVE and few else None,
        reason={Verdict.PASSED: "", Verdict.FAILED: "limit_exceeded"}.get(
            verdict, "few" if few else "not_proven"
        ),
        next_step=_advice(found, verdict, worst, empty),
        measurements=tuple(
            Measurement(
                name="gain",
                group=name,
                value=one.better,
                low=one.interval[0],
                high=one.interval[1],
                n=one.n,
            )
            for name, one in sorted(pairs.items(), key=lambda pair: _gain(pair[1]))
        ),
        details={"failed": failed, "undecided": open_ones, "level": level},
    )


def worst_group_note(found: Answers, rows: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Say for each column in which of its groups the candidate gains least; decides nothing."""
    notes = []
    for column in columns:
        if column not in rows.columns:
            continue
        parts = parts_of(rows, column, {})
        if len(parts) < 2:  # one group is everybody
            continue
        level = simultaneous_level(0.95, 0.05, len(parts))
        pairs = {
            name: found.of(mask).compare(level)
            for name, mask in parts.items()
            if mask.sum() >= SMALL_GROUP
        }
        if not pairs:
            continue
        worst = min(pairs, key=lambda name: _gain(pairs[name]))
        gain = estimate(pairs[worst].better, pairs[worst].interval, pairs[worst].n)
        notes.append(f"of the groups of {column} it gains least in {worst}: {gain}")
    return notes


def _judge(pair: Comparison, limit: float, *, beating: bool, few: bool) -> Verdict:
    if pair.unusable:
        return Verdict.FAILED
    interval = Interval(*pair.interval)
    judged: Judgement
    if beating:
        if pair.classes == 1 or few:
            return Verdict.INCONCLUSIVE
        judged = judge_superiority(
            pair.better,
            interval,
            delta=limit,
            n=pair.n,
            identical=pair.identical,
            confidence_level=pair.confidence_level,
        )
        return judged.verdict
    judged = judge_non_inferiority(
        pair.better,
        interval,
        margin=-limit,
        n=pair.n,
        identical=pair.identical,
        confidence_level=pair.confidence_level,
    )
    return Verdict.INCONCLUSIVE if few and not pair.identical else judged.verdict


def _gain(pair: Comparison) -> float:
    # What was not measured counts as the worst there is.
    return -math.inf if math.isnan(pair.better) else pair.better


def _summary(
    found: Answers,
    verdict: Verdict,
    worst: str,
    pair: Comparison | None,
    *,
    n: int,
    limit: float,
    beating: bool,
) -> str:
    asked = f"beats {found.baseline}" if beating else f"is no worse than {found.baseline}"
    line = f"limit above {number(limit)}"
    if pair is None:
        return f"no group has rows, so nobody can tell whether it {asked}"
    gain = f"{worst} gains {estimate(pair.better, pair.interval, pair.n)}"
    if pair.n < SMALL_GROUP:
        gain = f"{worst} has {TOO_FEW_TO_SHOW}"
    elif pair.unusable:
        gain = f"{worst} has {count(pair.unusable)} rows without a usable answer"
    if verdict is Verdict.PASSED:
        return f"{asked} in every group; least in {gain.replace(' gains', ':', 1)}; {line}"
    more = f", and in {n - 1} more" if n > 1 else ""
    if verdict is Verdict.FAILED:
        says = f"does not beat {found.baseline}" if beating else f"is worse than {found.baseline}"
        return f"{says} in {worst}{more}: {gain}; {line}"
    return f"cannot be shown that it {asked} in {worst}{more}: {gain}; {line}"


def _advice(found: Answers, verdict: Verdict, worst: str, empty: Sequence[str]) -> str:
    if verdict is Verdict.PASSED:
        return ""
    if empty and verdict is Verdict.INCONCLUSIVE:
        return f"no test row is in {empty[0]}: correct the slice, or name it in optional_groups"
    if verdict is Verdict.INCONCLUSIVE:
        return f"judge it on more test rows of {worst}, or name it in optional_groups"
    return f"look at the rows of {worst} that only {found.baseline} gets right"


def _known(frame: pd.DataFrame, column: str) -> None:
    if column not in frame.columns:
        raise DataError(
            f"[gate.baseline] names the column {column!r}, which the test rows do not have"
            + nearest(column, frame.columns),
            hint=f"columns: {', '.join(map(str, frame.columns[:12]))}",
        )
