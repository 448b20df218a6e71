"""A Python class as a model: packed whole, allowed first, run in a process of its own."""

import os
import zipfile

import numpy as np
import pytest

from mlguard.errors import ConfigError, ModelFileError, ModelRunError, UntrustedModelError
from mlguard.models.code import candidate_file, load_code, pack
from mlguard.models.formats import sniff
from mlguard.models.isolation import ChildPredictor
from mlguard.models.opening import open_model, open_version

RULES = """
import os
from helper import limit

class Rules:
    def load(self, folder):
        self.limit = limit(folder / "data" / "limit.txt")

    def predict(self, rows):
        return [int(row[0] > self.limit) for row in rows]

class Chances:
    def __init__(self):
        self.pid = os.getpid()

    def predict(self, rows):
        return [0] * len(rows)

    def predict_proba(self, rows):
        score = 1 / (1 + __import__("numpy").exp(-rows[:, 0]))
        return __import__("numpy").column_stack([1 - score, score])

class Empty:
    pass

class Broken:
    def __init__(self):
        raise RuntimeError("no licence")

class Unruly:
    def predict(self, rows):
        mood = int(rows[0, 0])
        if mood == 1:
            os._exit(3)
        if mood == 2:
            return [0] * (len(rows) + 1)
        if mood == 3:
            return ["a"] * len(rows)
        if mood == 4:
            __import__("ctypes").string_at(0)
        raise ValueError("no")
"""
FILES = ["helper.py", "data/limit.txt"]


@pytest.fixture
def folder(tmp_path):
    """A source, a module it imports, and a file it reads."""
    (tmp_path / "rules.py").write_text(RULES)
    (tmp_path / "helper.py").write_text("def limit(path):\n    return float(path.read_text())\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "limit.txt").write_text("0.25")
    return tmp_path


@pytest.fixture
def two_classes(numbers):
    return numbers.assign(y=(numbers["a"] > 0.25).astype(int))


def packed(folder, name, files=FILES):
    return candidate_file(f"{folder / 'rules.py'}:{name}", files, folder / "packed")


def opened(folder, name, frame, make_settings, **model):
    settings = make_settings(model={"allow_code": True} | model)
    return open_model(packed(folder, name), frame, settings)


def test_packing_depends_on_nothing_but_the_content(folder):
    """Times, owners and the order of files are no part of a version's identity."""
    first = pack(folder / "rules.py", "Rules", FILES)
    os.utime(folder / "rules.py", (1, 1))
    assert pack(folder / "rules.py", "Rules", FILES[::-1]) == first
    assert pack(folder / "rules.py", "Chances", FILES) != first
    file = packed(folder, "Rules")
    assert file == packed(folder, "Rules")
    assert sniff(file) == "python"
    (folder / "data" / "limit.txt").write_text("0.5")
    assert packed(folder, "Rules") != file


def test_any_other_path_stays_as_it_is(folder):
    """Also one with a colon that names no class."""
    for text in ("model.skops", "a:b.skops", "rules.py"):
        assert str(candidate_file(text, [], folder)) == text


def test_code_is_refused_until_it_is_allowed(folder, two_classes, make_settings):
    """Nothing of it is run before that: the source would not even compile."""
    (folder / "rules.py").write_text("raise SystemExit(1) ][")
    with pytest.raises(UntrustedModelError, match="Python code") as caught:
        open_model(packed(folder, "Rules"), two_classes, make_settings())
    assert "allow_code = true" in caught.value.hint
    with pytest.raises(UntrustedModelError):
        load_code(packed(folder, "Rules"), allow_code=False)


def test_a_class_answers_from_a_process_of_its_own(folder, two_classes, make_settings):
    """It finds its files and its modules, and its answers are its own."""
    found = opened(folder, "Rules", two_classes, make_settings)
    assert isinstance(found.predictor, ChildPredictor)
    assert not found.manifest.in_process
    assert set(found.manifest.predictor_code) == {"rules.py", "predictor.json", *FILES}
    answer = found.predictor.predict(two_classes)
    assert answer.labels.tolist() == two_classes["y"].tolist()
    assert answer.scores is None
    assert found.manifest.digest != opened(folder, "Chances", two_classes, make_settings).manifest


def test_a_class_with_probabilities_has_scores_and_thresholds(folder, two_classes, make_settings):
    """Its labels follow from the version's threshold, not from its predict."""
    found = opened(folder, "Chances", two_classes, make_settings, thresholds={"default": 0.7})
    settings = make_settings(model={"allow_code": True})
    answer = open_version(found.manifest, packed(folder, "Chances"), settings).predict(two_classes)
    expected = 1 / (1 + np.exp(-two_classes["a"]))
    np.testing.assert_allclose(answer.scores, expected)
    assert answer.labels.tolist() == (expected >= 0.7).astype(int).tolist()


@pytest.mark.parametrize(
    ("name", "why"),
    [("Absent", "has no class Absent"), ("Empty", "no method predict"), ("Broken", "no licence")],
)
def test_a_class_that_cannot_be_used_says_why(folder, two_classes, make_settings, name, why):
    """The child's error is the caller's, with its class."""
    found = opened(folder, name, two_classes, make_settings)
    with pytest.raises(ModelFileError, match=why):
        found.predictor.predict(two_classes.head(2))


@pytest.mark.parametrize(
    ("mood", "why"),
    [(1, "exit status 3"), (4, "SIGSEGV"), (2, "shape"), (3, "expected one of"), (5, "ValueError")],
)
def test_whatever_a_class_does_stays_in_its_process(folder, two_classes, make_settings, mood, why):
    """An exit, a crash, a wrong count, a wrong kind of answer, an exception."""
    found = opened(folder, "Unruly", two_classes, make_settings)
    rows = [[float(mood), 0.0]]
    try:
        answer = found.predictor.predict(rows)
    except ModelRunError as error:
        assert why in error.message  # noqa: PT017 - the other outcome is looked at, too
    else:
        assert not answer.valid.any()
        assert why in answer.reasons[0]


def test_files_outside_the_folder_are_refused(folder):
    """What a version needs stands beside its source."""
    with pytest.raises(ConfigError, match="not below"):
        packed(folder, "Rules", ["../other.txt"])
    with pytest.raises(ModelFileError, match="cannot be read"):
        packed(folder, "Rules", ["absent.txt"])


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    """An archive of somebody else's making is not unpacked anywhere."""
    file = tmp_path / "crafted.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("predictor.json", '{"class": "A", "source": "a.py"}')
        archive.writestr(name, "print('run')")
    assert sniff(file) == "python"
    with pytest.raises(ModelFileError, match="no packed predictor"):
        load_code(file, allow_code=True)
    assert not (tmp_path.parent / "evil.py").exists()
