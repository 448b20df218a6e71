"""Behaviour: perturbed columns, known directions, must-get-right cases, the same answer twice."""

import numpy as np
import pandas as pd
import pytest

from mlguard.checks import (
    CheckFailedError,
    assert_calibrated,
    assert_directional,
    assert_invariant,
    assert_minimum_functionality,
)
from mlguard.checks.behaviour import Behaviour
from mlguard.checks.declaration import declare_all, judge
from mlguard.checks.perturbing import changed_rows
from mlguard.errors import DataError, UsageError
from mlguard.results import Verdict

TABLES = """
[gate.behaviour]
confidence_level = 0.9
[gate.behaviour.invariance.sex]
column = "sex"
change = "swap"
[gate.behaviour.invariance.capitals]
column = "city"
change = "case"
[gate.behaviour.invariance.income]
column = "income"
change = "noise"
[gate.behaviour.directional.income]
column = "income"
multiply = 1.2
[gate.behaviour.directional.age_of_no]
column = "age"
add = 10
expect = "not_higher"
of = "0"
at_most = 0
[gate.behaviour.minimum_functionality.clear]
file = "clear.csv"
[gate.behaviour.reproducibility]
[gate.behaviour.calibration]
at_most = 0.05
[gate.behaviour.flips]
"""

CLEAR = pd.DataFrame(
    {"income": [90_000, 4_000], "age": [60, 20], "city": ["Ulm", "Kiel"], "sex": "F", "y": [1, 0]}
)


class Answers:
    """A classifier of what a function says, without scores."""

    classes_ = np.array([0, 1])

    def __init__(self, rule):
        self.rule = rule

    def predict(self, rows):
        return np.array([int(self.rule(row)) for row in rows.to_dict("records")])


@pytest.fixture
def judged(project):
    """Judge what app.toml declares of behaviour, by name."""

    def run(more):
        project.settings(more)
        CLEAR.to_csv(project.app / "clear.csv", index=False)
        subject = project.subject()
        declared = declare_all(subject.settings, project.root)
        items = [one for one in declared.items if one.family == "behaviour"]
        return {one.name: judge(one, subject, clock=lambda: 0.0) for one in items}, declared

    return run


def test_every_declared_test_is_an_item_and_is_judged(judged):
    """The model that learns what made the data keeps its promises; capitals it has never met."""
    found, _ = judged(TABLES)
    verdicts = {name: one.verdict for name, one in found.items()}
    assert verdicts == {
        "behaviour.invariance[sex]": Verdict.SKIPPED,
        "behaviour.invariance[capitals]": Verdict.FAILED,
        "behaviour.invariance[income]": Verdict.PASSED,
        "behaviour.directional[income]": Verdict.PASSED,
        "behaviour.directional[age_of_no]": Verdict.PASSED,
        "behaviour.minimum_functionality[clear]": Verdict.PASSED,
        "behaviour.reproducibility": Verdict.PASSED,
        "behaviour.calibration": Verdict.PASSED,
        "behaviour.flips": Verdict.SKIPPED,
    }
    capitals = found["behaviour.invariance[capitals]"]
    assert capitals.summary.startswith("other capitals in city change the answer on ")
    assert capitals.value > capitals.limit == 0.05
    assert capitals.next_step
    assert found["behaviour.invariance[sex]"].reason == "not_seen"
    calibration = found["behaviour.calibration"]
    assert calibration.interval[0] <= calibration.value <= calibration.interval[1] < 0.05


def test_nothing_is_judged_unless_declared(judged):
    """Without a table there is no item, and an item that is switched off is named."""
    found, _ = judged("")
    assert found == {}
    found, declared = judged("[gate.behaviour.calibration]\nenabled = false\n")
    assert found == {}
    assert "behaviour.calibration: switched off in app.toml" in declared.not_applicable


def test_a_test_that_cannot_be_made_is_an_error_not_a_pass(judged):
    """A column that is not there, no rows that change, a file that is missing: all ERRORED."""
    found, _ = judged(
        '[gate.behaviour.invariance.a]\ncolumn = "town"\nchange = "case"\n'
        '[gate.behaviour.invariance.b]\ncolumn = "age"\nchange = "typo"\n'
        '[gate.behaviour.minimum_functionality.c]\nfile = "none.csv"\n'
        '[gate.behaviour.directional.d]\ncolumn = "city"\nadd = 1\n'
        '[gate.behaviour.directional.e]\ncolumn = "income"\nadd = 1\nof = "maybe"\n'
    )
    assert {one.verdict for one in found.values()} == {Verdict.ERRORED}
    assert "no column 'town'" in found["behaviour.invariance[a]"].summary
    assert "no text" in found["behaviour.invariance[b]"].summary
    assert "knows no class 'maybe'" in found["behaviour.directional[e]"].summary


@pytest.mark.parametrize(
    ("change", "column", "values", "expected"),
    [
        ("case", "city", ["Ulm", "ULM", None], ["ULM", "ulm"]),
        ("space", "city", ["Ulm", None, "Bonn"], [" Ulm ", " Bonn "]),
        ("swap", "city", ["a", "b", "c", None], ["b", "c", "a"]),
        ("swap", "city", [True, False, True], [False, True, False]),
    ],
)
def test_changes_of_text(change, column, values, expected):
    """Each change does what its name says, and leaves alone what is missing."""
    frame = pd.DataFrame({column: pd.Series(values, dtype=object)})
    before, after = changed_rows(frame, column, change)
    assert after[column].tolist() == expected
    assert before[column].tolist() == [one for one in values if one is not None]
    assert frame[column].tolist() == values


def test_a_slip_swaps_two_neighbours_and_noise_keeps_whole_numbers():
    """A slip keeps the letters; noise goes both ways by its size, whole numbers by at least 1."""
    frame = pd.DataFrame({"a": ["Hamburg"] * 50, "b": np.arange(50), "c": np.linspace(0, 1, 50)})
    _, slips = changed_rows(frame, "a", "typo")
    assert {"".join(sorted(one)) for one in slips["a"]} == {"".join(sorted("Hamburg"))}
    assert len(set(slips["a"])) > 3
    _, whole = changed_rows(frame, "b", "noise")
    assert set((whole["b"] - frame["b"]).tolist()) == {-1, 1}
    _, real = changed_rows(frame, "c", "noise", size=0.1)
    np.testing.assert_allclose((real["c"] - frame["c"]).abs(), 0.1 * frame["c"].std())


def test_invariance_counts_the_rows_whose_answer_changes():
    """The share is that of the changed rows, by its Wilson interval, and the rows are named."""
    frame = pd.DataFrame({"city": ["Ulm", "Bonn"] * 100, "y": 1})
    model = Answers(lambda row: row["city"] == "ULM")
    with pytest.raises(CheckFailedError) as failed:
        assert_invariant(model, frame, column="city", change="case")
    result = failed.value.result
    assert (result.value, result.n) == (0.5, 200)
    text = str(failed.value)
    assert "other capitals in city change the answer on 100 of 200 changed rows" in text
    assert "it happens on rows 0, 2, 4" in text
    assert "next: train with such changes of city" in text
    same = assert_invariant(Answers(lambda _: 1), frame.head(3), column="city", change="case")
    assert (same.verdict, same.reason) == (Verdict.PASSED, "identical")


def test_few_rows_can_neither_pass_nor_fail_by_luck():
    """One answer of ten that changes is undecided at a limit of 5 %."""
    frame = pd.DataFrame({"city": [f"town{place}" for place in range(10)]})
    model = Answers(lambda row: row["city"] == "TOWN3")
    with pytest.raises(CheckFailedError, match="undecided"):
        assert_invariant(model, frame, column="city", change="case")
    warned = assert_invariant(model, frame, column="city", change="case", on_inconclusive="warn")
    assert warned.verdict is Verdict.INCONCLUSIVE


def test_directional_needs_scores_of_a_class(fitted, test_frame):
    """A fitted model's score rises with income; the other class's falls; labels alone say no."""
    passed = assert_directional(fitted, test_frame, column="income", multiply=1.5)
    assert passed.verdict is Verdict.PASSED
    with pytest.raises(CheckFailedError, match="lowers the score of 0 on"):
        assert_directional(fitted, test_frame, column="income", multiply=1.5, of=0)
    with pytest.raises(UsageError, match="gives no scores"):
        assert_directional(Answers(lambda _: 1), test_frame, column="income", add=1)
    with pytest.raises(UsageError, match="in one way"):
        assert_directional(fitted, test_frame, column="income", add=1, multiply=2)
    with pytest.raises(DataError, match="no column of numbers"):
        assert_directional(fitted, test_frame, column="city", add=1)


def test_cases_count_as_they_stand(tmp_path):
    """Two cases decide, without any interval; the wrong one is named by its row."""
    model = Answers(lambda row: row["age"] > 30)
    cases = pd.DataFrame({"age": [20, 40], "y": [0, 1]})
    assert assert_minimum_functionality(model, cases, target="y").verdict is Verdict.PASSED
    cases["y"] = [0, 0]
    path = tmp_path / "cases.csv"
    cases.to_csv(path, index=False)
    with pytest.raises(CheckFailedError, match="1 of 2 cases are answered right; wrong: row 1"):
        assert_minimum_functionality(model, path, target="y")
    half = assert_minimum_functionality(model, cases, at_least=0.5, target="y")
    assert half.value == 0.5
    with pytest.raises(DataError, match="nothing passes vacuously"):
        assert_minimum_functionality(model, cases.head(0), target="y")


class Scores:
    """A classifier whose score is a column."""

    classes_ = np.array([0, 1])
    feature_names_in_ = np.array(["score"])

    def predict_proba(self, rows):
        score = rows["score"].to_numpy()
        return np.column_stack([1 - score, score])

    def predict(self, rows):
        return (rows["score"] >= 0.5).astype(int).to_numpy()


def test_calibration_tells_frequencies_from_boasting():
    """Scores that are frequencies pass; scores pushed to the ends fail; labels alone refuse."""
    rng = np.random.default_rng(3)
    score = rng.beta(2, 2, 4000)
    frame = pd.DataFrame({"score": score, "y": (rng.random(4000) < score).astype(int)})
    good = assert_calibrated(Scores(), frame, at_most=0.05, target="y")
    assert good.verdict is Verdict.PASSED
    boasting = frame.assign(score=np.clip((score - 0.5) * 3 + 0.5, 0, 1))
    with pytest.raises(CheckFailedError, match="the score of 1 is off by"):
        assert_calibrated(Scores(), boasting, at_most=0.05, target="y")
    with pytest.raises(UsageError, match="no probabilities"):
        assert_calibrated(Answers(lambda _: 1), frame, target="y")


def test_an_answer_that_depends_on_its_neighbours_is_no_answer(project):
    """A model that compares rows of a batch is found out by asking them in other company."""
    from mlguard.checks.evidence import as_judged
    from mlguard.checks.steadiness import find_reproducibility
    from mlguard.config import ReproducibilityRule

    class Ranks(Answers):
        def predict(self, rows):
            return (rows["income"] > rows["income"].mean()).astype(int).to_numpy()

    frame = project.subject().test
    found = find_reproducibility(as_judged(Ranks(None), target="y"), frame, ReproducibilityRule())
    assert found.verdict is Verdict.FAILED
    assert "another answer when asked alone" in found.summary


def test_the_family_is_registered():
    """The entry point names it, so its items are collected."""
    from mlguard.checks.declaration import families

    assert isinstance(families()["behaviour"], Behaviour)
