"""Model files are read only as far as they are trusted."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
import zlib

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC, LinearSVC

from mlguard.errors import ModelFileError, UntrustedModelError
from mlguard.models.formats import TRUSTED_TYPES, PickleWarning, load_model, save_model, sniff


@pytest.fixture(scope="module")
def estimator(numbers):
    return LogisticRegression().fit(numbers[["a", "b"]], numbers["y"])


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(3),
        HistGradientBoostingClassifier(max_iter=2),
        CalibratedClassifierCV(LinearSVC(), cv=2),
        KNeighborsClassifier(),
        SVC(),
        GaussianProcessClassifier(),
        GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2),
    ],
    ids=lambda one: type(one).__name__,
)
def test_estimators_of_scikit_learn_come_back_whole(estimator, numbers, tmp_path):
    """Written and read again, each answers the same."""
    x = numbers[["a", "b"]].to_numpy()
    estimator.fit(x, numbers["y"])
    save_model(estimator, tmp_path / "new" / "m.skops")
    again = load_model(tmp_path / "new" / "m.skops")
    assert type(again) is type(estimator)
    np.testing.assert_array_equal(again.predict(x), estimator.predict(x))


def test_saved_files_are_compressed_and_leave_no_draft(estimator, tmp_path):
    """Deflated, whole, readable by all, and alone in the folder."""
    path = tmp_path / "m.skops"
    save_model(estimator, path)
    with zipfile.ZipFile(path) as archive:
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_DEFLATED}
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(ModelFileError, match="cannot be written"):
        save_model((one for one in ()), path)
    assert [one.name for one in tmp_path.iterdir()] == ["m.skops"]
    assert sniff(path) == "skops"


def whisper(values):
    """A function that a file can name and nobody allowed."""
    return values


def test_types_that_nobody_allowed_are_refused_by_name(tmp_path, monkeypatch):
    """The error names each type and the line for app.toml; with that line the file is read."""
    module = sys.modules[__name__]
    monkeypatch.setattr(whisper, "__module__", "shady")
    monkeypatch.setitem(sys.modules, "shady", module)
    path = tmp_path / "m.skops"
    skops.io.dump(FunctionTransformer(whisper), path)
    with pytest.raises(UntrustedModelError, match=r"shady\.whisper") as raised:
        load_model(path)
    assert '[model] trusted_types = ["shady.whisper"]' in raised.value.hint
    assert raised.value.data["types"] == ["shady.whisper"]
    assert raised.value.exit_code == 1
    with pytest.raises(UntrustedModelError):
        load_model(path, trusted_types=["shady.other", "builtins.eval"])
    assert load_model(path, trusted_types=["shady.whisper"]).func is whisper


def test_nothing_that_runs_what_a_file_names_is_trusted():
    """No builtins, no operating system, no importers, no partial functions on the list."""
    dangerous = ("builtins.", "os.", "posix.", "subprocess.", "functools.", "operator.", "pickle.")
    assert not [name for name in TRUSTED_TYPES if name.startswith(dangerous)]
    assert {name.partition(".")[0] for name in TRUSTED_TYPES} == {"numpy", "scipy", "sklearn"}


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


COMPRESSIONS = ("zlib", "gzip", "bz2", "xz", "lzma")


@pytest.mark.parametrize("write", [pickle.dump, joblib.dump], ids=["pickle", "joblib"])
def test_a_pickle_runs_nothing_unless_it_is_allowed(write, tmp_path):
    """Refused unread; allowed, it is read with a warning."""
    path, marker = tmp_path / "m.skops", tmp_path / "ran"
    with path.open("wb") as stream:
        write(Bomb(marker), stream)
    with pytest.raises(UntrustedModelError, match="runs code") as raised:
        load_model(path)
    assert "allow_pickle = true" in raised.value.hint
    assert not marker.exists()
    with pytest.warns(PickleWarning, match="runs code"):
        load_model(path, allow_pickle=True).close()
    assert marker.exists()


@pytest.mark.parametrize(
    "compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)]
)
def test_joblib_files_are_read_in_every_compression(compress, estimator, tmp_path):
    """Every compression that joblib knows is recognised as such."""
    path = tmp_path / "m.joblib"
    joblib.dump(estimator, path, compress=compress)
    assert sniff(path) == "pickle"
    with pytest.warns(PickleWarning):
        assert load_model(path, allow_pickle=True).classes_.tolist() == [0, 1, 2]


def archive(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, content in members.items():
            stream.writestr(name.replace("_json", ".json"), content)
    return packed.getvalue()


def deep(levels):
    return '{"a":' * levels + "1" + "}" * levels


BROKEN = {
    "empty": b"",
    "text": b"this is not a model\n",
    "html": b"<html>404</html>",
    "one byte": b"P",
    "zip magic only": b"PK\x03\x04",
    "zip of something else": archive(readme="hello"),
    "empty schema": archive(schema_json=""),
    "schema that is no object": archive(schema_json="[1, 2]"),
    "schema without anything": archive(schema_json="{}"),
    "schema too deep": archive(schema_json=deep(100_000)),
    "schema with another loader": archive(
        schema_json=json.dumps(
            {"protocol": 2, "__class__": "x", "__module__": "y", "__loader__": "NoNode"}
        )
    ),
    "schema that climbs out": archive(
        schema_json=json.dumps(
            {
                "protocol": 2,
                "__class__": "ndarray",
                "__module__": "numpy",
                "__loader__": "NdArrayNode",
                "type": "numpy",
                "file": "../../../../etc/passwd",
            }
        )
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_model_is_one_clear_error(name, tmp_path):
    """Whatever is wrong with the bytes, the same error names the file and what to do."""
    path = tmp_path / "m.skops"
    path.write_bytes(BROKEN[name])
    with pytest.raises(ModelFileError, match=r"m\.skops holds no model") as raised:
        load_model(path)
    assert raised.value.exit_code == 2
    assert raised.value.hint


def test_a_truncated_or_flipped_file_is_never_half_read(estimator, tmp_path):
    """Cut at many places, or with one byte flipped, it is refused or reads the same."""
    path = tmp_path / "m.skops"
    save_model(estimator, path)
    whole = path.read_bytes()
    for cut in range(1, len(whole), len(whole) // 40):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelFileError):
            load_model(path)
    for place in range(0, len(whole), len(whole) // 40):
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        try:
            found = load_model(path)
        except (ModelFileError, UntrustedModelError):
            continue
        np.testing.assert_array_equal(found.coef_, estimator.coef_)


def test_a_damaged_pickle_is_the_same_clear_error(tmp_path):
    """Allowed or not, a pickle that cannot be read is no model."""
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(list(range(1000)))[:-50])
    with pytest.warns(PickleWarning), pytest.raises(ModelFileError, match="holds no model"):
        load_model(path, allow_pickle=True)
    path.write_bytes(zlib.compress(b"no pickle at all"))
    with pytest.warns(PickleWarning), pytest.raises(ModelFileError, match="holds no model"):
        load_model(path, allow_pickle=True)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """What would unpack to more than the limit is refused by its declared size."""
    path = tmp_path / "m.skops"
    path.write_bytes(archive(schema_json="{}", payload=b"\0" * (40 << 20)))
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelFileError, match="unpacks to 40 MiB, and at most 20 is read"):
        load_model(path, max_unpacked_mib=20)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    """The path is named in full, with what to do."""
    for path, what in (
        (tmp_path / "no.skops", "does not exist"),
        (tmp_path, "is not a plain file"),
    ):
        with pytest.raises(ModelFileError, match=what) as raised:
            sniff(path)
        assert str(path) in raised.value.message
        assert "train" in raised.value.hint


def test_importing_the_room_is_cheap():
    """Neither scikit-learn nor pandas nor skops is loaded before a model is."""
    script = (
        "import sys, mlguard.models.formats, mlguard.models.predictor, mlguard.models.isolation; "
        "print([one for one in ('sklearn', 'pandas', 'skops', 'joblib', 'pyarrow') "
        "if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
