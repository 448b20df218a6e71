"""The subject of a gate: candidate, live version, simple models and data, loaded when asked.

Everything is loaded once and kept, predictions included: twenty checks of one candidate ask
for its predictions on the same test rows.

Rule 1: a missing label judges nothing.  :meth:`Subject.labelled` says which rows count.

Rule 2: a prediction that is no finite value is never dropped in silence: ``valid`` of an answer
says which they are, and a check that meets one fails the candidate.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlguard.checks.labels import attribute, finite, nearest
from mlguard.config import AppSettings, ProjectSettings
from mlguard.errors import DataError, ModelRunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import httpx
    import numpy as np
    import pandas as pd

    from mlguard.data.scan import TableScan
    from mlguard.models.bundle import Manifest
    from mlguard.models.isolation import ChildPredictor
    from mlguard.models.opening import Opened
    from mlguard.models.predictions import Predictions
    from mlguard.models.predictor import AnyPredictor
    from mlguard.models.uncertainty import Uncertainty

#: Of the choice of rows, where a sample is enough.
_SEED = 20_240_503
#: Frames whose predictions one model keeps: train and test, whole and labelled.
_KEPT = 4


class Predicts(Protocol):
    """Anything with scikit-learn's ``predict``."""

    def predict(self, rows: Any) -> Any:
        """Return one prediction per row."""


@dataclass(frozen=True)
class _Answer:
    """Predictions of a plain estimator, shaped like those of a loaded version."""

    labels: np.ndarray
    scores: np.ndarray | None
    valid: np.ndarray


class JudgedModel:
    """A model under judgement: a name, and predictions that are kept.

    Parameters
    ----------
    name : str
        How people call it: a version's name, a file's, or a simple model's.
    model : object
        Something with ``predict``: mlguard's ``Predictor`` or a scikit-learn estimator.
    target : str
        Column of the frames that holds the truth.
    features : list of str
        Columns that the model sees, in order.
    classes : sequence or None
        Classes in the model's order; None for a regression or where unknown.
    thresholds : mapping of str to float, optional
        The version's.  Where groups have their own, each row of a frame is answered by its
        group's, as it would be served.
    """

    def __init__(
        self,
        name: str,
        model: Predicts,
        *,
        target: str,
        features: list[str],
        classes: tuple[Any, ...] | None = None,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.target = target
        self.features = features
        self.classes = classes
        self.thresholds = thresholds or {}
        self._kept: dict[int, tuple[Any, Predictions | _Answer]] = {}

    def __repr__(self) -> str:
        return f"JudgedModel({self.name!r}, target={self.target!r})"

    def predict(self, rows: Any) -> Predictions | _Answer:
        """Return the model's predictions on some rows.

        Parameters
        ----------
        rows : pandas.DataFrame or array-like
            A frame may hold more columns than the model sees; they are left out.

        Returns
        -------
        Predictions
            ``labels`` (n,), ``scores`` (n,) or (n, k) or None, ``valid`` (n,).

        Raises
        ------
        DataError
            If the frame lacks a column that the model sees.
        ModelRunError
            If the model gives another number of predictions than there are rows.
        """
        key = id(rows)
        if key in self._kept and self._kept[key][0] is rows:
            return self._kept[key][1]
        answer = self._by_group(self._ask(self._visible(rows)), rows)
        if len(answer.labels) != len(rows):
            raise ModelRunError(
                f"{self.name} gave {len(answer.labels)} predictions for {len(rows)} rows",
                hint="predict must return exactly one value per row",
            )
        # The frame is kept with its answer: an id alone may be given out again.
        self._kept[key] = (rows, answer)
        while len(self._kept) > _KEPT:
            self._kept.pop(next(iter(self._kept)))
        return answer

    def probabilities(self, rows: Any) -> np.ndarray | None:
        """Return a plain estimator's class probabilities; None where it has none.

        Shape (n,) of the second class where there are two, else (n, n_classes).
        """
        import numpy as np

        if not hasattr(self.model, "predict_proba"):
            return None
        found = np.asarray(self.model.predict_proba(self._visible(rows)), float)
        return found[:, 1] if found.shape[1] == 2 else found  # two classes

    def _visible(self, rows: Any) -> Any:
        columns = getattr(rows, "columns", None)
        if columns is None:
            return rows
        if not self.features:
            # A model fitted on bare arrays has no names to ask for.
            return rows.drop(columns=[self.target], errors="ignore")
        absent = [name for name in self.features if name not in columns]
        if absent:
            raise DataError(
                f"{self.name} needs the column {absent[0]!r}, which the data does not have"
                + nearest(absent[0], columns),
                hint="correct the data, or [data] features in app.toml",
            )
        return rows[self.features]

    def _by_group(self, answer: Predictions | _Answer, rows: Any) -> Predictions | _Answer:
        """Answer by each row's own threshold, where the version has several."""
        from mlguard.models.predictions import Predictions
        from mlguard.models.thresholds import GroupThresholds, by_group

        table = GroupThresholds.of(self.thresholds)
        known = getattr(rows, "columns", ())
        if table is None or table.attribute not in known or not isinstance(answer, Predictions):
            return answer
        groups = {table.attribute: attribute(rows, table.attribute)}
        return by_group(answer, self.classes, self.thresholds, groups)

    def _ask(self, rows: Any) -> Predictions | _Answer:
        import numpy as np

        answer: Any = self.model.predict(rows)
        if hasattr(answer, "labels") and hasattr(answer, "valid"):
            shaped: Predictions = answer
            return shaped
        labels = np.asarray(answer)
        return _Answer(labels=labels, scores=None, valid=finite(labels))


class Subject:
    """What a gate judges, and everything it may be compared with.

    Parameters
    ----------
    project : ProjectSettings
        The project, for its registry.
    settings : AppSettings
        The app.
    model : Path, optional
        File of the candidate; default ``[model] path``.
    name : str, optional
        How the candidate is called; default the file's name.
    failures_dir : Path, optional
        Where rows that broke a check are listed by their id.
    serve : callable, optional
        Serves the candidate behind real HTTP while a ``with`` block runs; gives the client.
    """

    def __init__(
        self,
        project: ProjectSettings,
        settings: AppSettings,
        *,
        model: Path | None = None,
        name: str = "",
        failures_dir: Path | None = None,
        serve: Callable[[Subject], AbstractContextManager[httpx.Client]] | None = None,
    ) -> None:
        self.serve = serve
        self.project = project
        self.settings = settings
        self._named = model or Path(settings.path(settings.model.path))
        self.name = name or self._named.name
        self.failures_dir = failures_dir
        self.listed_files: set[Path] = set()

    @property
    def typed(self) -> str:
        """How a command names app and candidate: ``credit --model serving/credit/other.skops``."""
        own, file = Path(self.settings.path(self.settings.model.path)), self._named
        if file.resolve() == own.resolve():
            return self.settings.name
        if file.resolve().is_relative_to(self.project.root):
            file = file.resolve().relative_to(self.project.root)
        elif file.is_relative_to(tempfile.gettempdir()):
            return self.settings.name  # an estimator handed in: its file is gone with the run
        return f"{self.settings.name} --model {file}"

    @property
    def rows_listed(self) -> str:
        """Where the rows of a finding can be seen, as the end of an advice."""
        return f"; which rows: mlguard check {self.typed} --failures-dir DIR"

    # --- data ---

    @cached_property
    def test(self) -> pd.DataFrame:
        """Rows of ``[data] test``."""
        return self._frame(self.settings.data.test, "test")

    @cached_property
    def train(self) -> pd.DataFrame | None:
        """Rows of ``[data] train``; None where none are declared."""
        text = self.settings.data.train
        return self._frame(text, "train") if text else None

    @cached_property
    def train_scan(self) -> TableScan | None:
        """What the columns of ``[data] train`` hold, from one pass; None without training rows."""
        return self._scan(self.settings.data.train, "train") if self.settings.data.train else None

    @cached_property
    def test_scan(self) -> TableScan:
        """What the columns of ``[data] test`` hold, and what of it training never saw."""
        return self._scan(self.settings.data.test, "test", self.train_scan)

    def sample(self, part: str, most: int, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return a random sample of the rows of ``"train"`` or ``"test"``, read batch by batch."""
        from mlguard.data.sampling import sample_rows

        data = self.settings.data
        scan = self.test_scan if part == "test" else self.train_scan
        assert scan is not None  # whoever asks for training rows has some
        return sample_rows(
            self.settings.path(getattr(data, part)),
            scan,
            most,
            seed=_SEED,
            missing_values=data.missing_values,
            columns=columns,
        )

    def _scan(self, text: str, part: str, reference: TableScan | None = None) -> TableScan:
        from mlguard.data.scan import scan_table

        data = self.settings.data
        found = scan_table(
            self.settings.path(text),
            missing_values=data.missing_values,
            pairs=[(data.target, one) for one in data.sensitive if one != data.target],
            reference=reference,
        )
        self._must_have(found.names, text, part)
        return found

    @cached_property
    def dev(self) -> pd.DataFrame | None:
        """Rows of ``[data] dev``; None where none are declared."""
        text = self.settings.data.dev
        return self._frame(text, "dev") if text else None

    @cached_property
    def labelled(self) -> pd.DataFrame:
        """The test rows that have a label; the same frame where all have one."""
        present = self.test[self.settings.data.target].notna()
        if not present.any():
            raise DataError(
                f"no row of [data] test has a label in {self.settings.data.target!r}",
                hint="name another file in [data] test, or another column in [data] target",
            )
        return self.test if present.all() else self.test[present].reset_index(drop=True)

    @cached_property
    def truth(self) -> np.ndarray:
        """Labels of :attr:`labelled`, shape (n,)."""
        return self.labelled[self.settings.data.target].to_numpy()

    def _frame(self, text: str, part: str) -> pd.DataFrame:
        from mlguard.data.frames import read_frame

        data = self.settings.data
        frame = read_frame(self.settings.path(text), missing_values=data.missing_values)
        if frame.empty:
            raise DataError(
                f"[data] {part} of {self.settings.name}: {text} has no rows",
                hint="nothing can be judged on no rows; name a file that has some",
            )
        self._must_have([str(one) for one in frame.columns], text, part)
        return frame

    def _must_have(self, columns: Sequence[str], text: str, part: str) -> None:
        data = self.settings.data
        for key, column in [
            ("target", data.target),
            *(("sensitive", one) for one in data.sensitive if part == "test"),
            *((key, getattr(data, key)) for key in ("time", "id") if part == "test"),
        ]:
            if column and column not in columns:
                raise DataError(
                    f"[data] {key} of {self.settings.name} names the column {column!r}, "
                    f"which {text} does not have" + nearest(column, columns),
                    hint=f"columns: {', '.join(map(str, columns[:12]))}",
                )

    # --- models ---

    @cached_property
    def model_path(self) -> Path:
        """The candidate's file; a Python class is packed into one."""
        from mlguard.models.code import candidate_file

        packed = self.project.state_dir / "packed"
        return candidate_file(self._named, self.settings.model.files, packed)

    @cached_property
    def candidate(self) -> JudgedModel:
        """The version under judgement."""
        return self._judged(self.name, self._opened.predictor, self.settings.model.thresholds)

    @cached_property
    def manifest(self) -> Manifest:
        """The candidate's manifest, as a deployment would register it before compiling."""
        return self._opened.manifest.saying(self.uncertainty)

    @cached_property
    def uncertainty(self) -> Uncertainty | None:
        """What the candidate's answers say of how sure they are; None where they do not."""
        from mlguard.models.uncertainty import calibrated

        return calibrated(self._opened.predictor, self.settings, self.test)

    @cached_property
    def _opened(self) -> Opened:
        from mlguard.models.opening import open_model

        return open_model(self.model_path, self.test, self.settings)

    @cached_property
    def active(self) -> JudgedModel | None:
        """The version that serves now; None where none does."""
        url = self.project.registry_url
        if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
            # A check changes nothing: it does not even make the database.
            return None
        from mlguard.models.bundle import Manifest
        from mlguard.models.opening import open_version
        from mlguard.registry import Registry

        with Registry.open(self.project) as registry:
            version = registry.app(self.settings.name).active
            if version is None:
                return None
            manifest = Manifest.from_json(version.manifest)
            path = registry.artifacts.get(manifest.serving_sha256)
            return self._judged(
                version.name, open_version(manifest, path, self.settings), manifest.thresholds
            )

    def baseline(self, name: str) -> JudgedModel:
        """Return the simple model ``majority``, ``mean``, ``stump`` or ``linear``, trained."""
        if name not in self._baselines:
            from mlguard.checks.simple_models import train_simple

            self._baselines[name] = train_simple(name, self)
        return self._baselines[name]

    def preflight(self) -> None:
        """Load candidate and data, so that what nobody can judge is said once and at first.

        Raises
        ------
        MlguardError
            Whatever makes a judgement impossible: a file that is missing or no model, a
            column that is not there.
        """
        _ = (self.test, self.train_scan, self.candidate)

    @cached_property
    def _baselines(self) -> dict[str, JudgedModel]:
        return {}

    def _judged(
        self, name: str, predictor: AnyPredictor | ChildPredictor, thresholds: Mapping[str, float]
    ) -> JudgedModel:
        return JudgedModel(
            name,
            predictor,
            target=self.settings.data.target,
            features=list(predictor.input_schema.names),
            classes=predictor.classes,
            thresholds=thresholds,
        )


def as_judged(model: Any, *, target: str) -> JudgedModel:
    """Return a model of people's own as a :class:`JudgedModel`; one stays as it is.

    Parameters
    ----------
    model : object
        A fixture of the plug-in, or anything with ``predict``.
    target : str
        Column that holds the truth; empty where the model knows it.

    Raises
    ------
    UsageError
        If it cannot predict, or nobody knows the target.
    """
    if isinstance(model, JudgedModel):
        return model
    if not hasattr(model, "predict"):
        raise UsageError(
            f"{type(model).__name__} has no predict",
            hint="hand in the fixture `candidate`, or a model with a predict method",
        )
    if not target:
        raise UsageError(
            f"nobody knows which column {type(model).__name__} predicts",
            hint='say it: target="y"',
        )
    names = getattr(model, "feature_names_in_", None)
    classes = getattr(model, "classes_", None)
    return JudgedModel(
        type(model).__name__,
        model,
        target=target,
        features=[] if names is None else [str(one) for one in names],
        classes=None if classes is None else tuple(classes),
    )
