"""Model files: what they are, reading them without running code, writing them.

skops files name the types they are built of.  A file is read only if every type is known
harmless: skops' own list, :data:`TRUSTED_TYPES` below, and what ``[model] trusted_types`` adds.
What a file claims about itself is never passed on as trusted.

joblib and pickle files run code when they are read.  They are refused unless
``allow_pickle`` is true, and then reading one warns (:class:`PickleWarning`).

A trusted type is not a harmless *content*: a crafted tree can point outside its arrays and
crash the process.  That is why :mod:`mlguard.models.isolation` reads a file first.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

from mlguard.errors import ModelFileError, UntrustedModelError

Format = Literal["skops", "pickle", "onnx", "python"]

#: Largest size of a skops file's contents once unpacked.
MAX_UNPACKED_MIB = 4096

_SKLEARN_TYPES = {
    "sklearn._loss.loss": ("HalfTweedieLoss", "HalfTweedieLossIdentity"),
    "sklearn.calibration": (
        "_CalibratedClassifier",
        "_SigmoidCalibration",
        "_TemperatureScaling",
    ),
    "sklearn.cluster._bisect_k_means": ("_BisectingTree",),
    "sklearn.cluster._kmeans": ("_kmeans_single_elkan", "_kmeans_single_lloyd"),
    "sklearn.compose._column_transformer": ("_RemainderColsList", "make_column_selector"),
    "sklearn.ensemble._hist_gradient_boosting.predictor": ("TreePredictor",),
    "sklearn.feature_selection._mutual_info": ("mutual_info_classif", "mutual_info_regression"),
    "sklearn.feature_selection._univariate_selection": (
        "chi2",
        "f_classif",
        "f_regression",
        "r_regression",
    ),
    "sklearn.gaussian_process._gpc": ("_BinaryGaussianProcessClassifierLaplace",),
    "sklearn.gaussian_process.kernels": (
        "CompoundKernel",
        "ConstantKernel",
        "DotProduct",
        "ExpSineSquared",
        "Exponentiation",
        "Hyperparameter",
        "Matern",
        "PairwiseKernel",
        "Product",
        "RBF",
        "RationalQuadratic",
        "Sum",
        "WhiteKernel",
    ),
    "sklearn.metrics._dist_metrics": (
        "EuclideanDistance32",
        "EuclideanDistance64",
        "ManhattanDistance32",
        "ManhattanDistance64",
        "MinkowskiDistance32",
        "MinkowskiDistance64",
    ),
    "sklearn.metrics._scorer": (
        "_CurveScorer",
        "_PassthroughScorer",
        "_Scorer",
    ),
    "sklearn.metrics._classification": (
        "accuracy_score",
        "balanced_accuracy_score",
        "f1_score",
        "log_loss",
        "precision_score",
        "recall_score",
    ),
    "sklearn.metrics._ranking": ("average_precision_score", "roc_auc_score"),
    "sklearn.metrics._regression": ("mean_absolute_error", "mean_squared_error", "r2_score"),
    "sklearn.model_selection._search_successive_halving": (
        "HalvingGridSearchCV",
        "HalvingRandomSearchCV",
    ),
    "sklearn.model_selection._split": (
        "GroupKFold",
        "KFold",
        "RepeatedKFold",
        "RepeatedStratifiedKFold",
        "ShuffleSplit",
        "StratifiedGroupKFold",
        "StratifiedKFold",
        "StratifiedShuffleSplit",
        "TimeSeriesSplit",
    ),
    "sklearn.multiclass": ("_ConstantPredictor",),
    "sklearn.neighbors._ball_tree": ("BallTree",),
    "sklearn.neighbors._kd_tree": ("KDTree",),
    "sklearn.neural_network._stochastic_optimizers": ("AdamOptimizer", "SGDOptimizer"),
    "sklearn.tree._tree": ("Tree",),
    "sklearn.utils._bunch": ("Bunch",),
    "sklearn.utils._metadata_requests": ("MetadataRequest", "MethodMetadataRequest"),
}

#: Types beside skops' own list that scikit-learn's fitted estimators are made of: plain data
#: and pure functions of scikit-learn, numpy and scipy.  None of them calls what a file names.
TRUSTED_TYPES = frozenset(
    {
        "numpy.dtype",
        "numpy.max",
        "numpy.mean",
        "numpy.median",
        "numpy.min",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.sparse._csc.csc_array",
        "scipy.sparse._csc.csc_matrix",
        "scipy.sparse._csr.csr_array",
        "scipy.sparse._csr.csr_matrix",
        *(f"{module}.{name}" for module, names in _SKLEARN_TYPES.items() for name in names),
    }
)

#: Member of an archive that makes it a packed Python predictor.
PACKED_CODE = "predictor.json"
#: Keys of the fields of an ONNX file that may follow its version.
_GRAPH_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72)
#: First bytes of a pickle and of the compressions that joblib writes.
_PICKLE_MAGIC = (
    b"\x80",
    b"\x78",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x5d\x00\x00",
    b"\x04\x22\x4d\x18",
)


class PickleWarning(UserWarning):
    """A file that runs code when it is read was read because the settings allow it."""


def sniff(path: Path | str) -> Format:
    """Tell by its bytes what a model file is; its name does not matter.

    Raises
    ------
    ModelFileError
        If it is missing, empty, no plain file, or none of the known formats.
    """
    path = Path(path)
    if not path.is_file():
        what = "is not a plain file" if path.exists() else "does not exist"
        raise ModelFileError(
            f"the model file {path} {what}",
            hint="correct [model] path in app.toml, or make the file: its train script writes it",
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise ModelFileError(f"the model file {path} cannot be read: {error}") from error
    if not head:
        raise _no_model(path, "it is empty")
    if head.startswith(b"PK\x03\x04"):
        return "python" if _is_packed_code(path) else "skops"
    if head.startswith(_PICKLE_MAGIC):
        return "pickle"
    if _is_graph(head):
        return "onnx"
    raise _no_model(path, "it is neither a skops nor an ONNX file, nor a joblib or pickle file")


def _is_packed_code(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # reading it says what is wrong with it
    return PACKED_CODE in names and "schema.json" not in names


def _is_graph(head: bytes) -> bool:
    """Tell an ONNX file: a protobuf message that begins with its version and another field."""
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 0x40 and head[2] in _GRAPH_FIELDS


def load_model(
    path: Path | str,
    *,
    trusted_types: Collection[str] = (),
    allow_pickle: bool = False,
    max_unpacked_mib: float = MAX_UNPACKED_MIB,
) -> Any:
    """Read a model.

    Parameters
    ----------
    path : path
        The file; see :func:`sniff`.
    trusted_types : collection of str
        Types that a skops file may name beside the known ones (``[model] trusted_types``).
    allow_pickle : bool, default False
        Whether a file that runs code may be read (``[model] allow_pickle``).
    max_unpacked_mib : float
        Largest size of the unpacked contents of a skops file.

    Returns
    -------
    Any
        The estimator.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, or no model.
    UntrustedModelError
        If it names types nobody allowed, or would run code and ``allow_pickle`` is false.

    Warns
    -----
    PickleWarning
        If it runs code and that is allowed.
    """
    path = Path(path)
    model_format = sniff(path)
    if model_format == "pickle":
        return _load_pickle(path, allow_pickle=allow_pickle)
    if model_format != "skops":
        what = "an ONNX graph" if model_format == "onnx" else "a Python predictor"
        raise _no_model(path, f"it is {what}, and a scikit-learn estimator is needed here")
    _check_archive(path, max_unpacked_mib)
    allowed = TRUSTED_TYPES | set(trusted_types)
    found = _guarded(path, lambda: _untrusted_types(path))
    refused = sorted(set(found) - allowed)
    if refused:
        quoted = ", ".join(f'"{name}"' for name in refused)
        raise UntrustedModelError(
            f"{path} holds types that nobody allowed: {', '.join(refused)}",
            hint=f"if you trust their code, add to app.toml: [model] trusted_types = [{quoted}]",
            types=refused,
        )
    return _guarded(path, lambda: _load_skops(path, sorted(set(found) & allowed)))


def save_model(estimator: Any, path: Path | str) -> None:
    """Write a model as a compressed skops file, whole or not at all.

    Parameters
    ----------
    estimator : Any
        A fitted scikit-learn estimator.
    path : path
        Where to; its folder is made.

    Raises
    ------
    ModelFileError
        If skops cannot write it, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _skops().dump(estimator, stream, compression=zipfile.ZIP_DEFLATED)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o644)
        draft.replace(path)
    # skops raises its own and any error of the object's __reduce__.
    except Exception as error:
        raise ModelFileError(
            f"{type(estimator).__name__} cannot be written to {path}: {error}",
            hint="skops writes scikit-learn estimators; for others use joblib and allow_pickle",
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _no_model(path: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"{path} holds no model: {why}",
        hint="write it with mlguard.models.formats.save_model or skops.io.dump",
    )


def _check_archive(path: Path, max_unpacked_mib: float) -> None:
    """Refuse archives that are damaged, no model, or larger than they look."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _no_model(path, f"it is a damaged archive ({error})") from error
    if "schema.json" not in {one.filename for one in members}:
        raise _no_model(path, "it is an archive without schema.json, so not from skops")
    # Reading stops at the declared size, so the declaration can be relied on.
    unpacked = sum(one.file_size for one in members) / 2**20
    if unpacked > max_unpacked_mib:
        raise _no_model(
            path, f"it unpacks to {unpacked:,.0f} MiB, and at most {max_unpacked_mib:,.0f} is read"
        )


def _skops() -> Any:
    """Import skops without pytest, which scikit-learn's list of estimators would bring along.

    A process that serves has no business with test tools, and they take a third of a second.
    """
    absent = "pytest" not in sys.modules
    if absent:
        sys.modules["pytest"] = None  # type: ignore[assignment]  # makes importing it fail
    try:
        return importlib.import_module("skops.io")
    finally:
        if absent:
            del sys.modules["pytest"]


def _untrusted_types(path: Path) -> list[str]:
    return [str(name) for name in _skops().get_untrusted_types(file=path)]


def _load_skops(path: Path, trusted: list[str]) -> Any:
    return _skops().load(path, trusted=trusted)


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """Read, and turn the many things that bad files raise into one error."""
    try:
        return read()
    # BadZipFile, ValueError, TypeError, KeyError, JSONDecodeError, ImportError, zlib.error, …:
    # a bad file makes skops, numpy and scikit-learn raise anything.
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise _no_model(path, f"reading it failed ({type(error).__name__}: {why})") from error


def _load_pickle(path: Path, *, allow_pickle: bool) -> Any:
    if not allow_pickle:
        raise UntrustedModelError(
            f"{path} is a joblib or pickle file, which runs code when it is read",
            hint="write the model with skops.io.dump; or, if you trust the file, set in app.toml: "
            "[model] allow_pickle = true",
        )
    import joblib

    warnings.warn(
        f"{path} runs code while it is read (allow_pickle = true)", PickleWarning, stacklevel=3
    )
    return _guarded(path, lambda: joblib.load(path))
