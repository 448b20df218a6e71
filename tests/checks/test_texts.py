"""What a failing check says: what was found and expected, on how many rows, what to do next."""

import re

import numpy as np
import pytest

from mlguard.checks.declaration import declare_all, judge
from mlguard.checks.explain import report_text
from mlguard.results import Verdict

EVERYTHING = """
[gate.data_quality.label_issues]
at_most = 0.01
[gate.privacy.k_anonymity]
columns = ["age", "city", "sex"]
at_least = 50
[gate.fairness]
metrics = ["selection_rate", "false_negative_rate", "calibration_error", "accuracy"]
at_most = 0.05
base_rate_at_most = 0.01
[gate.fairness.delayed_impact]
success = 5
failure = -150
[gate.baseline]
delta = 0.4
must_match = ["linear"]
by = ["city"]
[gate.behaviour.invariance.city]
column = "city"
change = "swap"
at_most = 0.01
[gate.behaviour.directional.income]
column = "income"
add = -20000
[gate.behaviour.minimum_functionality.easy]
file = "cases.csv"
[gate.behaviour.calibration]
at_most = 0.001
[gate.serving.size]
at_most_mib = 0.0001
[gate.serving.features]
at_most = 1
"""
BAD = (Verdict.FAILED, Verdict.WARNED, Verdict.INCONCLUSIVE, Verdict.ERRORED)


def spoilt(frame):
    """Rows in which something is wrong with every column."""
    places = np.arange(len(frame))
    return frame.assign(
        income=np.where(frame["sex"] == "F", frame["income"] / 2, frame["income"]).round(0),
        age=frame["age"].where(places % 5 != 0, 999),
        city=frame["city"].where(places % 7 != 0, "Rom"),
        note=[f"ann{one}@example.com" for one in places],
    )


@pytest.mark.parametrize("rows", [3000, 60])
def test_whoever_did_not_write_the_check_is_told_what_to_do(project, test_frame, rows):
    """Each bad verdict, on many rows and on few, ends with a next step; commands name the app."""
    project.settings(EVERYTHING)
    project.data(test=spoilt(test_frame).head(rows))
    test_frame.head(8).assign(y=lambda one: 1 - one["y"]).to_csv(project.app / "cases.csv")
    subject = project.subject()
    results = [
        judge(item, subject, clock=lambda: 0.0)
        for item in declare_all(subject.settings, project.root).items
    ]
    bad = [one for one in results if one.verdict in BAD]
    assert len({one.id for one in bad}) > (15 if rows == 3000 else 8)
    for one in bad:
        text = report_text(one)
        assert one.next_step, text
        assert one.summary, text
        assert text.splitlines()[-1].startswith("  next: ") or "traceback" in one.details, text
        # Only what closes the gate may say that it does.
        assert ("undecided closes the gate" in text) <= one.blocks, text
        for command in re.findall(r"mlguard \w+ (\w+)", one.next_step):
            assert command == "credit", text
    said = {one.id: one.next_step for one in bad}
    if rows == 3000:
        gap = said["fairness.false_negative_rate_difference"]
        assert gap.endswith("mlguard fairness credit --by sex --thresholds")
        assert said["fairness.delayed_impact"].endswith("--by sex --thresholds")
        assert said["data_quality.ranges"].endswith("mlguard check credit --failures-dir DIR")


def test_a_candidate_of_another_file_is_named_in_the_command(project):
    """What is typed next is about the same model."""
    other = project.root / "serving/credit/other.skops"
    other.write_bytes((project.app / "model.skops").read_bytes())
    assert project.subject().typed == "credit"
    assert project.subject(model=other).typed == "credit --model serving/credit/other.skops"
