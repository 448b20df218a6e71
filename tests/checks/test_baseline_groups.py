"""A better average cannot hide a worse group; must_match; where an error comes from."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlguard.checks import JudgedModel
from mlguard.checks.baseline import compare, matches
from mlguard.checks.baseline_groups import judge_groups, parts_of, slice_mask
from mlguard.checks.declaration import declare_all, judge
from mlguard.checks.side_by_side import answers
from mlguard.errors import ConfigError, DataError
from mlguard.results import Verdict
from mlguard.stats.decomposition import decompose


class Column:
    """Answers what stands in a column."""

    def __init__(self, column):
        self.column = column

    def predict(self, rows):
        return rows[self.column].to_numpy()


def model(column):
    return JudgedModel(column, Column(column), target="y", features=[column])


def two_groups(n_a=2000, n_b=600):
    """Ours is 9 points better than theirs in A and 10 points worse in B."""
    rng = np.random.default_rng(7)
    n = n_a + n_b
    group = np.repeat(["A", "B"], [n_a, n_b])
    y = rng.integers(0, 2, n)
    draw = rng.random(n)
    ours = np.where(draw < np.where(group == "A", 0.92, 0.75), y, 1 - y)
    theirs = np.where(draw < np.where(group == "A", 0.83, 0.85), y, 1 - y)
    age = np.where(group == "A", 50, 25)
    return pd.DataFrame({"g": group, "age": age, "y": y, "ours": ours, "theirs": theirs})


def judged(frame, check, limit, **options):
    found, rows = answers(model("ours"), model("theirs"), frame, "accuracy")
    parts = parts_of(rows, "g", {})
    return judge_groups(found, parts, check=check, limit=limit, min_group_size=30, **options)


def test_a_better_average_hides_no_worse_group():
    """On average no worse, and better; in group B worse by 10 points, which fails and is named."""
    frame = two_groups()
    assert compare(model("ours"), model("theirs"), frame, "accuracy").interval[0] > 0
    found = judged(frame, "baseline.no_worse_in", -0.02)
    assert found.verdict is Verdict.FAILED
    assert found.summary.startswith("is worse than theirs in g=B: g=B gains −0.10 [")
    assert [one.group for one in found.measurements] == ["g=B", "g=A"]
    assert judged(frame, "baseline.beats_in", 0.0).verdict is Verdict.FAILED
    assert judged(frame[frame["g"] == "A"], "baseline.beats_in", 0.0).verdict is Verdict.PASSED


def test_intervals_hold_over_all_groups_together():
    """With two groups each interval is at the Sidak level, so it is wider than one alone."""
    frame = two_groups()
    found = judged(frame, "baseline.no_worse_in", -0.02, family_error=0.05)
    assert found.details["level"] == pytest.approx(0.95**0.5)
    alone = compare(model("ours"), model("theirs"), frame[frame["g"] == "B"], "accuracy")
    assert found.interval[0] < alone.interval[0] < alone.interval[1] < found.interval[1]


def test_small_groups_are_undecided_unless_optional_or_alike():
    """Few rows say nothing; named optional they do not matter; answered alike they pass."""
    frame = two_groups(n_b=25)
    frame.loc[frame.index[-2:], "theirs"] = 1 - frame["ours"].iloc[-2:]
    found = judged(frame, "baseline.no_worse_in", -0.02)
    assert (found.verdict, found.reason, found.n_min) == (Verdict.INCONCLUSIVE, "few", 30)
    assert "optional_groups" in found.next_step
    lenient = judged(frame, "baseline.no_worse_in", -0.02, optional={"g=B"})
    assert lenient.verdict is Verdict.PASSED
    frame["theirs"] = frame["ours"]
    assert judged(frame, "baseline.no_worse_in", -0.02).verdict is Verdict.PASSED


def test_slices_are_conditions():
    """Comparisons joined by "and"; a missing value is in no slice."""
    frame = pd.DataFrame({"age": [20, 40, None, 60], "city": ["Ulm", "Ulm", "Ulm", None]})
    assert slice_mask(frame, "age < 50").tolist() == [True, True, False, False]
    assert slice_mask(frame, "age >= 40 and city = Ulm").tolist() == [False, True, False, False]
    assert slice_mask(frame, "city != Bonn").tolist() == [True, True, True, False]
    for text in ("town = Ulm", "city < Ulm", "age = old"):
        with pytest.raises(DataError):
            slice_mask(frame, text)


def test_an_empty_slice_does_not_pass():
    """A slice that no row is in is undecided, and the message says so."""
    frame = two_groups()
    found, rows = answers(model("ours"), model("theirs"), frame, "accuracy")
    parts = parts_of(rows, "slices", {"old": "age > 90", "A": "g = A"})
    result = judge_groups(found, parts, check="baseline.beats_in", limit=0.0, min_group_size=30)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.next_step.startswith("no test row is in old")


def test_app_toml_declares_them(project):
    """``by``, ``slices`` and ``must_match`` are items of their own, judged like the others."""
    project.settings(
        '[gate.baseline]\nby = "sex"\nmust_match = ["stump", "linear"]\nslices = '
        '{young = "age < 40", "in Ulm" = "city = Ulm"}\nfamily_error = 0.2\n'
    )
    subject = project.subject()
    items = [
        one for one in declare_all(subject.settings, project.root).items if one.family == "baseline"
    ]
    found = {one.name: judge(one, subject, clock=lambda: 0.0) for one in items}
    assert {name: one.verdict for name, one in found.items()} == {
        "baseline.beats[majority]": Verdict.PASSED,
        "baseline.matches[stump]": Verdict.PASSED,
        "baseline.matches[linear]": Verdict.PASSED,
        "baseline.no_worse_than[live]": Verdict.SKIPPED,
        "baseline.beats_in[sex]": Verdict.PASSED,
        "baseline.no_worse_in[sex]": Verdict.SKIPPED,
        "baseline.beats_in[slices]": Verdict.PASSED,
        "baseline.no_worse_in[slices]": Verdict.SKIPPED,
    }
    assert found["baseline.beats_in[sex]"].details["level"] == pytest.approx(0.95)
    errors = found["baseline.beats[majority]"].details["errors"]
    assert set(errors["error"]) == {"train", "test"}
    assert errors["named"] == ["bias"]


def test_dev_rows_tell_variance_from_mismatch(project, test_frame):
    """With [data] dev the error has three parts, and the sentence names the one that counts."""
    project.settings("", base=project.base + 'dev = "dev.csv"\n')
    other = test_frame.assign(y=np.where(np.arange(len(test_frame)) % 2, test_frame["y"], 0))
    project.data(dev=test_frame, test=other)
    subject = project.subject()
    item = next(
        one
        for one in declare_all(subject.settings, project.root).items
        if one.id == "baseline.beats"
    )
    result = judge(item, subject, clock=lambda: 0.0)
    assert set(result.details["errors"]["error"]) == {"train", "dev", "test"}
    assert "mismatch" in result.details["errors"]["named"]
    assert any("on held-out rows" in one for one in result.details["notes"])


@pytest.mark.parametrize("text", ['decide = "proof"', '[gate.baseline.beats]\ndecide = "proof"'])
def test_a_key_without_effect_is_refused(project, text):
    """``decide`` means nothing to a comparison, so it may not be written."""
    project.settings(f"[gate.baseline]\n{text}\n")
    with pytest.raises(ConfigError, match="decide"):
        project.subject()


@pytest.mark.parametrize(
    ("errors", "named"),
    [
        ((1, 5, 5), ("variance",)),
        ((10, 11, 12), ("bias",)),
        ((10, 11, 20), ("bias", "mismatch")),
        ((0, 0, 0), ()),
    ],
)
def test_errors_are_taken_apart_as_the_table_says(errors, named):
    """Ng's three examples, and a model without errors."""
    train, dev, test = errors
    found = decompose(train, dev=dev, test=test)
    assert found.named == named
    assert sum(found.parts.values()) == test
    assert decompose(1, test=5).named == ("variance or mismatch",)
    assert decompose(1, dev=1, test=1, live=6).named == ("live mismatch",)


def test_adult_is_told_apart_from_its_baseline_by_mcnemar(shared_data):
    """1680 rows against 681: the exact test's p, by scipy, and a lower bound above 5 points."""
    frame = pd.read_csv(shared_data / "fairness/adult/adult_test_lr_scores.csv.gz")

    def judged_as(name):
        return JudgedModel(name, Column(name), target="y_true", features=[name])

    pair = compare(judged_as("y_pred"), judged_as("y_pred_baseline"), frame, "accuracy")
    details = pair.details()
    assert (details["gained"], details["lost"]) == (1680, 681)
    expected = stats.binomtest(681, 1680 + 681).pvalue
    assert details["mcnemar_p"] == pytest.approx(expected, rel=1e-6, abs=1e-300)
    assert expected < 1e-90
    assert matches(pair, margin=0.0).verdict is Verdict.PASSED
    worse = compare(judged_as("y_pred_baseline"), judged_as("y_pred"), frame, "accuracy")
    assert matches(worse, margin=0.02).verdict is Verdict.FAILED
