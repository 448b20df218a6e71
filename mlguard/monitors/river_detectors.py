"""River's drift detectors, by the names they were published under.

They are well known and quick, and make no promise about false alarms: ``status`` says so, and a
monitor that uses one may freeze but not roll back unless ``action`` is written out.  Each looks
at one value after another and says "changed", for better or worse; then it starts again.

River is optional (``pip install "mlguard[river]"``) and is imported when the first detector is
made.  Its objects have no JSON form, so their state is pickled into the snapshot and read back
by an unpickler that builds nothing but these detectors and what they are made of.
"""

from __future__ import annotations

import base64
import binascii
import collections
import io
import pickle
import random
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mlguard.config import RIVER_DETECTORS
from mlguard.errors import ConfigError, UsageError
from mlguard.stats.sequential import ChangePoint

#: Names in river 0.21 and older, where they differ.
_OTHER_NAMES = {"HDDM_A": "HDDMA", "HDDM_W": "HDDMW"}
#: Detectors of errors: they take 0 and 1 only.
_BINARY = frozenset({"DDM", "HDDM_A", "HDDM_W"})
#: KSWIN samples its window: the same stream must give the same alarms again.
_SEED = 42
#: What river's detectors are made of, besides river's own classes.
_PARTS: dict[tuple[str, str], Any] = {
    ("collections", "deque"): collections.deque,
    ("random", "Random"): random.Random,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "float64"): np.float64,
    ("numpy", "bool"): np.bool_,
}


class RiverDetector:
    """One of river's detectors behind the methods of the e-detector.

    Parameters
    ----------
    name : str
        ``ADWIN, PageHinkley, DDM, HDDM_A, HDDM_W`` or ``KSWIN``.
    **parameters
        Handed to river's class as they are; default: river's own.

    Attributes
    ----------
    n : int
        Values seen since the detector was made.
    alarms : int
        Changes found so far.

    Raises
    ------
    ConfigError
        If river is not installed.
    UsageError
        If there is no such detector.

    Examples
    --------
    >>> detector = RiverDetector("ADWIN")
    >>> detector.update([0.0] * 500 + [1.0] * 500)  # doctest: +SKIP
    511
    """

    def __init__(self, name: str, **parameters: Any) -> None:
        kind = _kind(name)
        if name == "KSWIN":
            parameters = {"seed": _SEED, **parameters}
        self.name = name
        self.n = 0
        self.alarms = 0
        self._detector = kind(**parameters)

    def update(self, values: npt.ArrayLike) -> int | None:
        """Take more values, in order.

        Parameters
        ----------
        values : array_like of shape (n,)
            Numbers; of ``DDM, HDDM_A`` and ``HDDM_W`` 0 and 1, where anything from 0.5 on
            counts as 1.  No NaN.

        Returns
        -------
        int or None
            0-based index *in this batch* of the value at which a change was found.  What
            follows it in the batch is not taken: hand it in again.

        Raises
        ------
        UsageError
            If a value is NaN or infinite; nothing is taken then.
        """
        taken = np.asarray(values, float).ravel()
        if not np.isfinite(taken).all():
            raise UsageError(f"{self.name} takes finite numbers only")
        plain: list[Any] = (taken >= 0.5 if self.name in _BINARY else taken).tolist()
        for index, value in enumerate(plain):
            self._detector.update(value)
            if self._detector.drift_detected:
                self.n += index + 1
                self.alarms += 1
                return index
        self.n += len(plain)
        return None

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""
        state = pickle.dumps(self._detector, protocol=4)
        return {
            "detector": self.name,
            "n": self.n,
            "alarms": self.alarms,
            "river": _river().__version__,
            "state": base64.b64encode(state).decode("ascii"),
        }

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild a detector from :meth:`snapshot`; it goes on as if nothing had happened.

        Raises
        ------
        UsageError
            If the snapshot is of another release of river, or not one of a detector.
        """
        self = cls(document["detector"])
        found = _river().__version__
        if document["river"] != found:
            raise UsageError(
                f"a snapshot of river {document['river']}, and {found} is installed",
                hint="start a new detector: what the old one had seen is lost",
            )
        try:
            detector = _Unpickler(io.BytesIO(base64.b64decode(document["state"]))).load()
        except (pickle.UnpicklingError, binascii.Error, EOFError, TypeError) as error:
            raise UsageError(f"the snapshot holds no detector: {error}") from error
        if type(detector) is not type(self._detector):
            raise UsageError(f"the snapshot holds no {self.name}")
        self._detector = detector
        self.n, self.alarms = int(document["n"]), int(document["alarms"])
        return self


def estimate_shift(values: npt.ArrayLike) -> ChangePoint | None:
    """Estimate where a mean changed, whichever way: the best split in two.

    Parameters
    ----------
    values : array_like of shape (n,)
        Up to the alarm, oldest first; no NaN.

    Returns
    -------
    ChangePoint or None
        Its window is the single index.  None for fewer than two values.

    Examples
    --------
    >>> estimate_shift([0.9] * 50 + [0.2] * 20).index
    50
    """
    x = np.asarray(values, float).ravel()
    if x.size < 2:  # one value has no two sides
        return None
    sizes = np.arange(1, x.size)
    gap = np.cumsum(x)[:-1] - sizes * x.mean()
    # The statistic of a difference of two means with one variance, but for constants.
    index = int(np.argmax(gap**2 / (sizes * (x.size - sizes)))) + 1
    return ChangePoint(index, index, index, float(x[:index].mean()), float(x[index:].mean()))


def _river() -> Any:
    try:
        import river.drift
        import river.drift.binary
    except ImportError as error:
        raise ConfigError(
            "river is not installed, and a detector of river's is asked for",
            hint='pip install "mlguard[river]", or use detector = "e-detector"',
        ) from error
    return river


def _kind(name: str) -> Callable[..., Any]:
    if name not in RIVER_DETECTORS:
        raise UsageError(
            f"there is no detector {name!r}", hint=f"known: {', '.join(RIVER_DETECTORS)}"
        )
    river = _river()
    room = river.drift.binary if name in _BINARY else river.drift
    kind: Callable[..., Any] = getattr(room, _OTHER_NAMES.get(name, name), None) or getattr(
        room, name
    )
    return kind


class _Unpickler(pickle.Unpickler):
    """Builds river's own objects and the few plain ones they hold; runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, if a detector may be made of it."""
        if (module, name) in _PARTS:
            return _PARTS[module, name]
        if (module, name) == ("numpy._core.multiarray", "scalar"):
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):
            return _method
        found = None
        if module.partition(".")[0] == "river":
            found = super().find_class(module, name)
        if not isinstance(found, type) or found.__module__.partition(".")[0] not in (
            "river",
            "builtins",  # what is compiled names no module of its own
        ):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a detector")
        return found


def _method(one: Any, name: str) -> Any:
    """Return a method of one of river's objects: how a bound one is pickled."""
    if type(one).__module__.partition(".")[0] != "river" or name.startswith("__"):
        raise pickle.UnpicklingError(f"{name} of {type(one).__name__} is no part of a detector")
    return getattr(one, name)
