"""Would going back help?  The failing window is played to each version that could be gone back to.

A drift that breaks every model alike is not cured by an older one, and a switch that does not
help spends the budget, hides the cause and frightens people.  So a target has to earn it, on
the rows and labels of the window that failed:

- its bytes are read again and their digest is checked, its inputs must be among those that
  callers send, and it must answer every row, in a process of its own;
- a soft check asks for more: its loss is below the acceptable one and below the current
  version's, or lower than the current's with a one-sided 95 % bound on the paired rows.  Where
  the check itself can judge a window (a gap between groups), the target has to keep the limit.

A hard check asks for no comparison: what answers is better than what does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from mlguard.errors import MlguardError
from mlguard.monitors.fairness import FLOOR
from mlguard.monitors.losses import Task, loss, row_losses
from mlguard.policy import Trial
from mlguard.results import Finding, Verdict
from mlguard.stats.means import mean_interval
from mlguard.stats.paired import PairedTable, newcombe_paired
from mlguard.wording import estimate, number

if TYPE_CHECKING:
    from mlguard.models.bundle import Manifest
    from mlguard.models.predictions import Predictions
    from mlguard.monitors.window import WindowData

#: Labelled rows below which a comparison says nothing.
N_MIN = 20
#: Rows of a window that are replayed at most; the latest ones.
MOST_ROWS = 2000
CONFIDENCE_LEVEL = 0.95

#: Plays rows to a model in a child process.
Replayer = Callable[["Manifest", Path, list[list[Any]]], "Predictions"]


class Target(Protocol):
    """What qualification needs to know of a version."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def manifest(self) -> dict[str, Any]:
        """What it is made of."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Failure:
    """What failed, and on which rows.

    Attributes
    ----------
    check : str
        The check's name.
    hard : bool
        Whether it is a hard one.
    window : WindowData or None
        The rows on which it failed; None where none are kept.
    task : {"classification", "regression"}
    scale : float
        See :mod:`mlguard.monitors.losses`.
    theta : float or None
        Acceptable loss; None where it is not known.
    rejudge : callable or None
        Judges the window with other answers in it; None: by loss.
    """

    check: str
    hard: bool
    window: WindowData | None
    task: Task = "classification"
    scale: float = 1.0
    theta: float | None = None
    rejudge: Callable[[WindowData], Sequence[Finding]] | None = None


def try_targets(
    targets: Sequence[Target],
    failure: Failure,
    *,
    at_most: int,
    fetch: Callable[[str], Path],
    replay: Replayer | None = None,
    needs_comparison: bool = True,
) -> list[Trial]:
    """Try versions that could be gone back to, in order, until one qualifies.

    Parameters
    ----------
    targets : sequence of Target
        Best first.
    failure : Failure
        What failed.
    at_most : int
        How many are tried.
    fetch : callable
        Gives the path of a model file by its SHA-256, checking the bytes.
    replay : callable, optional
        Plays rows to a model; default: in a child process.
    needs_comparison : bool, default True
        Whether a soft check's target must be shown to help (``[auto] qualify``).

    Returns
    -------
    list of Trial
        One for each that was tried; only the last can be qualified.
    """
    trials = []
    for target in targets[:at_most]:
        compare = needs_comparison and not failure.hard
        trial = _try(target, failure, fetch, replay or replay_in_child, compare=compare)
        trials.append(trial)
        if trial.outcome == "qualified":
            break
    return trials


def replay_in_child(manifest: Manifest, path: Path, rows: list[list[Any]]) -> Predictions:
    """Play rows to a model in a process of its own."""
    from mlguard.models.isolation import predict_in_child

    return predict_in_child(manifest, path, rows)


def _try(
    target: Target,
    failure: Failure,
    fetch: Callable[[str], Path],
    replay: Replayer,
    *,
    compare: bool,
) -> Trial:
    from mlguard.models.bundle import Manifest

    manifest = Manifest.from_json(target.manifest)
    try:
        path = fetch(manifest.serving_sha256)
    except (MlguardError, OSError) as error:
        return Trial.unfit(target.name, f"its bytes cannot be read: {_message(error)}")
    window = _comparable(failure) if compare else _answerable(failure.window)
    if window is not None:
        answers = answers_on(target.name, manifest, path, window, replay)
        if isinstance(answers, Trial):
            return answers
        if compare:
            return _compared(target.name, window, answers, failure)
        reason = f"it answers {len(window)} logged rows"
    elif compare:
        return Trial(version=target.name, outcome="unproven", reason=_nothing_to_compare(failure))
    else:
        reason = "its bytes are intact"
    return Trial(version=target.name, outcome="qualified", reason=reason)


def answers_on(
    name: str, manifest: Manifest, path: Path, window: WindowData, replay: Replayer
) -> Predictions | Trial:
    """Return what a target answers for the window, or why it cannot be gone back to."""
    absent = [one for one in manifest.schema.names if one not in window.columns]
    if absent:
        return Trial.unfit(
            name, f"it needs inputs that are not in the log: {', '.join(absent[:5])}"
        )
    try:
        answers = replay(manifest, path, _rows(window, manifest.schema.names))
    except MlguardError as error:
        return Trial.unfit(name, f"it does not run: {_message(error)}")
    lost = int((~answers.valid).sum())
    if lost:
        return Trial.unfit(name, f"it gives no prediction on {lost} of {len(window)} logged rows")
    return _as_served(manifest, answers, window)


def _as_served(manifest: Manifest, answers: Predictions, window: WindowData) -> Predictions:
    """Answer by the target's own thresholds for the groups that callers named."""
    from mlguard.models.thresholds import GroupThresholds, by_group

    table = GroupThresholds.of(manifest.thresholds)
    if table is None:
        return answers
    named = [one.get(table.attribute) for one in window.groups]
    return by_group(
        answers,
        manifest.schema.classes,
        manifest.thresholds,
        {table.attribute: np.array(named, dtype=object)},
    )


def _compared(name: str, window: WindowData, answers: Predictions, failure: Failure) -> Trial:
    outputs = np.empty(len(window), dtype=object)
    outputs[:] = answers.outputs()
    if failure.rejudge is None:
        return _by_loss(name, window, list(outputs), failure)
    scores = answers.scores if answers.scores is not None and answers.scores.ndim == 1 else None
    return _by_check(
        name,
        failure.check,
        failure.rejudge(window.with_answers(outputs, scores)),
        failure.rejudge(window),
    )


def _message(error: Exception) -> str:
    return error.message if isinstance(error, MlguardError) else str(error)


def _answerable(window: WindowData | None) -> WindowData | None:
    """Return the latest valid rows of a window whose inputs were logged."""
    if window is None or not window.columns:
        return None
    places = np.flatnonzero(window.valid & window.inputs_kept)[-N_MIN:]
    return window.take(places) if places.size else None


def _comparable(failure: Failure) -> WindowData | None:
    """Return the latest rows on which the current version's loss is known."""
    window = failure.window
    if window is None or not window.columns:
        return None
    _, judged = row_losses(window, task=failure.task, scale=failure.scale)
    places = np.flatnonzero(judged & window.inputs_kept)[-MOST_ROWS:]
    return window.take(places) if places.size >= N_MIN else None


def _nothing_to_compare(failure: Failure) -> str:
    if failure.window is None:
        return "no rows of the failing window are kept"
    if not failure.window.columns:
        return "the inputs of the failing window are not logged"
    return f"the failing window has fewer than {N_MIN} labelled rows with inputs to compare on"


def _rows(window: WindowData, names: Sequence[str]) -> list[list[Any]]:
    """Return the inputs row by row, as JSON values; missing is None."""
    columns = [_plain(window.columns[name].tolist()) for name in names]
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(values: list[Any]) -> list[Any]:
    # NaN is the one value that differs from itself.
    return [None if one is None or one != one else one for one in values]


def _by_check(
    name: str, check: str, findings: Sequence[Finding], current: Sequence[Finding]
) -> Trial:
    # The check that failed decides: what else a version is not good at, it was not before.
    worst = next((one for one in findings if one.name == check), None)
    if worst is None:
        return Trial(version=name, outcome="unproven", reason=f"{check} was not judged")
    reason = f"on the same window: {worst.summary}"
    if worst.verdict is Verdict.FAILED:
        return Trial(version=name, outcome="unhelpful", reason=reason)
    if worst.verdict in (Verdict.INCONCLUSIVE, Verdict.ERRORED):
        # Too few rows to say that the limit is kept may be enough to say that it is better.
        same = next((one for one in current if one.name == check), None)
        if same is None or not _is_better(worst, same):
            return Trial(version=name, outcome="unproven", reason=reason)
    return Trial(version=name, outcome="qualified", reason=reason)


def _is_better(one: Finding, other: Finding) -> bool:
    """Whether a finding is proven better than another of the same check."""
    if one.interval is None or other.interval is None:
        return False
    if one.id.endswith(FLOOR):
        return one.interval[0] > other.interval[1]
    return one.interval[1] < other.interval[0]


def _by_loss(name: str, window: WindowData, outputs: list[Any], failure: Failure) -> Trial:
    current, _ = row_losses(window, task=failure.task, scale=failure.scale)
    other = np.array(
        [
            loss(output, label, task=failure.task, scale=failure.scale)
            for output, label in zip(outputs, window.label, strict=True)
        ]
    )
    if np.isnan(other).any():
        return Trial.unfit(name, "its answers cannot be compared with the labels")
    gain = current - other
    bound = _least_gain(current, other)
    mine = float(other.mean())
    n = len(window)
    scores = (
        f"mean loss {estimate(mine, None, n)}, the current version's "
        f"{number(float(current.mean()))} on the same rows"
    )
    acceptable = failure.theta is not None and mine <= failure.theta and gain.mean() > 0
    if acceptable or bound > 0:
        return Trial(version=name, outcome="qualified", reason=scores)
    return Trial(version=name, outcome="unhelpful", reason=scores)


def _least_gain(current: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return the one-sided lower bound of how much smaller the other's loss is."""
    if np.isin(current, (0.0, 1.0)).all() and np.isin(other, (0.0, 1.0)).all():
        table = PairedTable.count(other == 0, current == 0)
        return newcombe_paired(table, confidence_level=CONFIDENCE_LEVEL, side="low").low
    gain = current - other
    return mean_interval(gain, low=-1, high=1, confidence_level=CONFIDENCE_LEVEL, side="low").low
