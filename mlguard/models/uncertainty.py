"""How sure an answer is: a set of classes, or an interval, that holds the truth as promised.

What an answer needs is one number, measured when a version is deployed on rows that it was not
fitted on, and kept in its manifest: the same version says the same for ever.  Two classes need
the score that an answer has anyway, more classes need the score of each.

The promise is about rows like the calibration rows.  Where live data drifts, it is no longer
kept; the monitors watch for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from mlguard.config import AppSettings
from mlguard.errors import ConfigError, DataError, UsageError
from mlguard.stats.conformal import conformal_threshold

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from mlguard.models.isolation import ChildPredictor
    from mlguard.models.predictions import Predictions
    from mlguard.models.predictor import AnyPredictor

_SEED = 20_240_505
_TWO = 2


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """What a version needs to say how sure it is.

    Attributes
    ----------
    kind : {"set", "interval"}
        Of a classifier, or of a regression.
    coverage : float
        How often the truth is held, in (0.5, 1).
    threshold : float
        Largest ``1 - score`` of a class in the set, or half the interval's width.
    n : int
        Rows that it was measured on.
    rows_sha256 : str
        Digest of the file that they are from.
    classes : tuple
        In the order of the scores; empty for a regression.
    """

    kind: Literal["set", "interval"]
    coverage: float
    threshold: float
    n: int
    rows_sha256: str
    classes: tuple[Any, ...] = ()

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self | None:
        """Return what a manifest says of it; None where the version does not offer it."""
        found = manifest.get("uncertainty")
        if not found:
            return None
        classes = manifest["input_schema"].get("classes") or ()
        return cls(**found, classes=tuple(classes))

    def to_json(self) -> dict[str, Any]:
        """Return it as a manifest holds it."""
        return {
            "kind": self.kind,
            "coverage": self.coverage,
            "threshold": self.threshold,
            "n": self.n,
            "rows_sha256": self.rows_sha256,
        }

    @property
    def needs_all_scores(self) -> bool:
        """Whether the score of every class is needed, not only that of the second of two."""
        return self.kind == "set" and len(self.classes) != _TWO

    def said(self, label: Any, score: Any) -> dict[str, Any] | None:
        """Return what an answer says of its uncertainty.

        Parameters
        ----------
        label : Any
            The answer.
        score : float, list of float or None
            Its score, or that of every class.

        Returns
        -------
        dict or None
            ``{"set": [...], "coverage"}`` or ``{"interval": [low, high], "coverage"}``; None
            without a score.  The answer itself is always in the set.
        """
        if score is None:
            return None
        if self.kind == "interval":
            bounds = [label - self.threshold, label + self.threshold]
            return {"interval": bounds, "coverage": self.coverage}
        scores = [1 - score, score] if isinstance(score, float) else score
        least = 1 - self.threshold
        kept = [
            one
            for one, its in zip(self.classes, scores, strict=True)
            if its >= least or one == label
        ]
        return {"set": kept, "coverage": self.coverage}


def calibration_parts(
    settings: AppSettings, test: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the rows to calibrate on, those to judge coverage on, and the first one's digest.

    Without ``[data] calibration`` the labelled test rows are split in half, by a fixed draw.
    """
    from mlguard.data.frames import file_digest, read_frame

    data = settings.data
    if data.calibration:
        source = settings.path(data.calibration)
        frame = read_frame(source, missing_values=data.missing_values)
        if data.target not in frame.columns:
            raise DataError(
                f"[data] calibration of {settings.name} has no column {data.target!r}",
                hint="the rows need their labels",
            )
        return _labelled(frame, data.target), _labelled(test, data.target), file_digest(source)
    rows = _labelled(test, data.target)
    order = np.random.default_rng(_SEED).permutation(len(rows))
    half = len(rows) // 2
    digest = file_digest(settings.path(data.test))
    return rows.iloc[np.sort(order[:half])], rows.iloc[np.sort(order[half:])], digest


def _labelled(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    return frame[frame[target].notna()]


def calibrated(
    predictor: AnyPredictor | ChildPredictor, settings: AppSettings, test: pd.DataFrame
) -> Uncertainty | None:
    """Measure what a version needs to say how sure it is; None where the app does not ask for it.

    Parameters
    ----------
    predictor : Predictor
        The version.
    settings : AppSettings
        The app.
    test : pandas.DataFrame
        Rows of ``[data] test``.

    Raises
    ------
    ConfigError
        If the model gives no scores, or there are too few rows for the coverage.
    """
    if not settings.app.uncertainty:
        return None
    rows, _, digest = calibration_parts(settings, test)
    found = predictor.predict(rows)
    classes = predictor.classes
    if classes is not None and found.scores is None:
        raise ConfigError(
            f"[app] uncertainty of {settings.name} needs scores, and the model gives none",
            hint="use a classifier with predict_proba, or write uncertainty = false",
        )
    strange = strangeness(found, classes, rows[settings.data.target].to_numpy())
    try:
        threshold = conformal_threshold(strange, settings.app.coverage)
    except UsageError as error:
        raise ConfigError(
            f"[app] uncertainty of {settings.name}: {error.message}", hint=error.hint
        ) from error
    if not np.isfinite(threshold):
        raise DataError(
            f"the model gave no usable answer to so many calibration rows of {settings.name} that "
            f"a coverage of {settings.app.coverage:g} cannot be promised",
            hint="let the model handle every row",
        )
    return Uncertainty(
        kind="interval" if classes is None else "set",
        coverage=settings.app.coverage,
        threshold=threshold,
        n=len(rows),
        rows_sha256=digest,
        classes=() if classes is None else tuple(classes),
    )


def strangeness(
    found: Predictions, classes: tuple[Any, ...] | None, truth: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Return how strange the truth is to a version, row by row, shape (n_rows,).

    One minus the score of the true class, or the absolute residual; infinite where the answer
    is not valid, or the class unknown to the model.
    """
    if classes is None:
        strange = np.abs(np.asarray(truth, float) - np.asarray(found.labels, float))
    else:
        assert found.scores is not None
        scores = found.scores
        if scores.ndim == 1:
            scores = np.column_stack([1 - scores, scores])
        place = {one: index for index, one in enumerate(classes)}
        places = np.array([place.get(one, -1) for one in truth.tolist()])
        strange = 1 - scores[np.arange(len(places)), places]
        strange[places < 0] = np.inf
    strange[~np.asarray(found.valid, bool)] = np.inf
    result: npt.NDArray[np.float64] = strange
    return result
