"""How much of a rise in loss comes from other inputs, other classes, or the same ones judged worse.

Rows before and after a change lie in cells of the inputs and have classes.  The mean loss that
the rows before would have had is worked out under other weights: those that give them the
mix of cells of the rows after (``v(X)``), the mix of classes (``v(Y)``), or both (``v(XY)``, by
iterative proportional fitting).  With ``v()`` the loss before and ``L`` the loss after::

    covariate = ½ [v(X) - v() + v(XY) - v(Y)]      the two are treated alike (Shapley's value):
    label     = ½ [v(Y) - v() + v(XY) - v(X)]      neither order of the two is the right one
    concept   = L_seen - v(XY)                     neither mix explains it
    unseen    = L - L_seen                         rows after in cells that had no rows before

They add up to ``L - v()`` whatever the cells are.  Where the inputs alone shift, or the classes
alone, ``v(XY)`` is the loss after and nothing is left for the concept.

References
----------
Deming & Stephan (1940), Ann. Math. Stat. 11:427-444, for the fitting; Shapley (1953), for the
sharing; Quiñonero-Candela et al. (2009), Dataset Shift in Machine Learning, for the words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlguard.errors import UsageError
from mlguard.stats.interval import FloatArray, Interval, critical_value

IntArray = npt.NDArray[np.int64]

#: Rounds of the proportional fitting; it converges geometrically where it can.
_ROUNDS = 60
N_BOOT = 200


@dataclass(frozen=True, slots=True)
class Share:
    """One part of a change of the mean loss, in the loss's unit, with its interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftParts:
    """A change of the mean loss, taken apart.

    Attributes
    ----------
    before, after : float
        Mean losses.
    n_before, n_after : int
        Rows.
    change, covariate, label, concept, unseen : Share
        The change and its four parts, which add up to it.
    inputs_alone, classes_alone : float
        What the one mix alone would have changed.
    """

    before: float
    after: float
    n_before: int
    n_after: int
    change: Share
    covariate: Share
    label: Share
    concept: Share
    unseen: Share
    inputs_alone: float
    classes_alone: float

    @property
    def parts(self) -> dict[str, Share]:
        """The four parts by name."""
        return {name: getattr(self, name) for name in PARTS}


PARTS = ("covariate", "label", "concept", "unseen")


def shift_parts(
    loss_before: npt.ArrayLike,
    loss_after: npt.ArrayLike,
    *,
    cell_before: npt.ArrayLike,
    cell_after: npt.ArrayLike,
    class_before: npt.ArrayLike,
    class_after: npt.ArrayLike,
    confidence_level: float = 0.95,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> ShiftParts:
    """Take a change of the mean loss apart.

    Parameters
    ----------
    loss_before, loss_after : array_like of shape (n_before,) and (n_after,)
        Losses; no NaN.
    cell_before, cell_after : array_like of int
        Cell of the inputs that each row lies in, from 0.
    class_before, class_after : array_like of int
        Class, or bin of the label, that each row has, from 0.  A class that had no rows before
        counts to the concept.
    confidence_level : float, default 0.95
        Of each interval.
    n_boot : int, default 200
        Bootstrap samples; rows before and after are drawn apart.
    seed : int, default 0
        Of the draws.

    Returns
    -------
    ShiftParts

    Raises
    ------
    UsageError
        If there are no rows before or after.

    Examples
    --------
    The same losses in each cell, more rows in the worse cell: all of it is the inputs' mix.

    >>> found = shift_parts(
    ...     [0, 0, 0, 1], [0, 1, 1, 1],
    ...     cell_before=[0, 0, 0, 1], cell_after=[0, 1, 1, 1],
    ...     class_before=[0, 0, 0, 0], class_after=[0, 0, 0, 0], n_boot=1,
    ... )
    >>> found.change.value, found.covariate.value, found.concept.value
    (0.5, 0.5, 0.0)
    """
    old = _Rows.of(loss_before, cell_before, class_before)
    new = _Rows.of(loss_after, cell_after, class_after)
    if not len(old.loss) or not len(new.loss):
        raise UsageError("a change has rows before and after it, and one of them has none")
    n_cells = 1 + max(old.cell.max(), new.cell.max())
    n_classes = 1 + max(old.kind.max(), new.kind.max())
    rng = np.random.default_rng(seed)
    shape = int(n_cells), int(n_classes)
    counted = [
        np.stack([one.table(shape, None), *(one.table(shape, rng) for _ in range(n_boot))])
        for one in (old, new)
    ]
    found = _taken_apart(counted[0][:, 0], counted[0][:, 1], counted[1][:, 0], counted[1][:, 1])
    tails = (1 - confidence_level) / 2

    def share(name: str) -> Share:
        value = float(found[name][0])
        low, high = np.quantile(found[name][1:], [tails, 1 - tails]) if n_boot else (value, value)
        return Share(value, Interval(min(float(low), value), max(float(high), value)))

    return ShiftParts(
        before=float(found["before"][0]),
        after=float(found["after"][0]),
        n_before=len(old.loss),
        n_after=len(new.loss),
        inputs_alone=float(found["inputs_alone"][0]),
        classes_alone=float(found["classes_alone"][0]),
        **{name: share(name) for name in ("change", *PARTS)},
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    loss: FloatArray
    cell: IntArray
    kind: IntArray

    @classmethod
    def of(cls, loss: npt.ArrayLike, cell: npt.ArrayLike, kind: npt.ArrayLike) -> _Rows:
        return cls(
            np.asarray(loss, np.float64), np.asarray(cell, np.int64), np.asarray(kind, np.int64)
        )

    def table(self, shape: tuple[int, int], rng: np.random.Generator | None) -> FloatArray:
        """Return counts and sums of losses by cell and class, of these rows or a sample of them."""
        n = len(self.loss)
        weight = np.ones(n)
        if rng is not None:
            weight = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        place = self.cell * shape[1] + self.kind
        size = shape[0] * shape[1]
        counts = np.bincount(place, weights=weight, minlength=size)
        sums = np.bincount(place, weights=weight * self.loss, minlength=size)
        return np.stack([counts.astype(np.float64), sums.astype(np.float64)]).reshape(2, *shape)


def _taken_apart(
    n0: FloatArray, s0: FloatArray, n1: FloatArray, s1: FloatArray
) -> dict[str, FloatArray]:
    """Take changes apart, one for each table of a stack of shape (n_tables, cells, classes)."""
    cells = (1, 2)
    before, after = s0.sum(cells) / n0.sum(cells), s1.sum(cells) / n1.sum(cells)
    seen = n0.sum(2) > 0
    inside = n1 * seen[..., None]
    n_inside = inside.sum(cells)
    met = n_inside > 0
    # Where nothing after lies in a cell that was seen, all of the change is unseen.
    inside_loss = np.where(met, (s1 * seen[..., None]).sum(cells) / np.maximum(n_inside, 1), before)
    goal = np.where(met[:, None, None], inside, n0)
    of_cells, of_classes = goal.sum(2, keepdims=True), goal.sum(1, keepdims=True)
    inputs = _loss(n0, s0, _ratio(of_cells, n0.sum(2, keepdims=True)))
    classes = _loss(n0, s0, _ratio(of_classes, n0.sum(1, keepdims=True)))
    both = _loss(n0, s0, _fitted(n0, of_cells, of_classes))
    return {
        "before": before,
        "after": after,
        "change": after - before,
        "inputs_alone": inputs - before,
        "classes_alone": classes - before,
        "covariate": (inputs - before + both - classes) / 2,
        "label": (classes - before + both - inputs) / 2,
        "concept": inside_loss - both,
        "unseen": after - inside_loss,
    }


def _ratio(wanted: FloatArray, had: FloatArray) -> FloatArray:
    return np.divide(wanted, had, out=np.zeros_like(wanted), where=had > 0)


def _loss(n0: FloatArray, s0: FloatArray, weight: FloatArray) -> FloatArray:
    total = (weight * n0).sum((1, 2))
    plain = s0.sum((1, 2)) / n0.sum((1, 2))
    # No row before has a class that is asked for: no weights make them alike.
    weighted: FloatArray = (weight * s0).sum((1, 2)) / np.where(total > 0, total, 1)
    return np.where(total > 0, weighted, plain)


def _fitted(n0: FloatArray, of_cells: FloatArray, of_classes: FloatArray) -> FloatArray:
    """Return weights of shape (n_tables, cells, classes) that meet both margins, if any do."""
    weight = np.ones_like(n0)
    for _ in range(_ROUNDS):
        weight = weight * _ratio(of_classes, (weight * n0).sum(1, keepdims=True))
        weight = weight * _ratio(of_cells, (weight * n0).sum(2, keepdims=True))
    return weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one segment of the rows has to do with a change of the mean loss.

    Attributes
    ----------
    place : int
        Its code.
    n_before, n_after : int
        Rows.
    loss_before, loss_after : float or None
        Mean losses; None without rows.
    mix : float
        Part of the change that comes from the segment's growing or shrinking.
    own : float
        Part that comes from its own loss.
    share : Share
        Both together.
    """

    place: int
    n_before: int
    n_after: int
    loss_before: float | None
    loss_after: float | None
    mix: float
    own: float
    share: Share


def segment_parts(
    loss_before: npt.ArrayLike,
    loss_after: npt.ArrayLike,
    *,
    segment_before: npt.ArrayLike,
    segment_after: npt.ArrayLike,
    confidence_level: float = 0.95,
) -> list[Segment]:
    """Share a change of the mean loss among segments of the rows; the shares add up to it.

    With shares p and q of the rows before and after, losses l and l' of a segment and the mean
    loss L before, a segment has ``mix = (q - p)(l - L)`` and ``own = q (l' - l)``.  A segment
    that is new has no mix: ``own = q (l' - L)``.

    Parameters
    ----------
    loss_before, loss_after : array_like of shape (n_before,) and (n_after,)
        Losses; no NaN.
    segment_before, segment_after : array_like of int
        Segment of each row, from 0.
    confidence_level : float, default 0.95
        Of the normal interval of each share.

    Returns
    -------
    list of Segment
        In the order of their codes; a code without rows is left out.

    Raises
    ------
    UsageError
        If there are no rows before or after.
    """
    old, new = np.asarray(loss_before, np.float64), np.asarray(loss_after, np.float64)
    if not len(old) or not len(new):
        raise UsageError("a change has rows before and after it, and one of them has none")
    first, second = np.asarray(segment_before), np.asarray(segment_after)
    whole = old.mean()
    found = []
    for place in np.union1d(first, second):
        mine, theirs = first == place, second == place
        p, q = mine.mean(), theirs.mean()
        before = float(old[mine].mean()) if mine.any() else None
        after = float(new[theirs].mean()) if theirs.any() else None
        level = whole if before is None else before
        mix = (q - p) * (level - whole)
        own = 0.0 if after is None else q * (after - level)
        # What one more row would change: the share is a mean over each of the two samples.
        spread = np.sqrt(
            np.var(theirs * (new - whole)) / len(new)
            + np.var(mine * (old - whole) + (q - p) * (old - whole)) / len(old)
        )
        half = critical_value(confidence_level) * spread
        value = float(mix + own)
        found.append(
            Segment(
                place=int(place),
                n_before=int(mine.sum()),
                n_after=int(theirs.sum()),
                loss_before=before,
                loss_after=after,
                mix=float(mix),
                own=float(own),
                share=Share(value, Interval(float(value - half), float(value + half))),
            )
        )
    return found
