"""River's detectors behind ours: their documented alarms, restarts, and what they may not do."""

import base64
import json
import os
import pickle
import random
import sys

import numpy as np
import pytest

from mlguard.config import RIVER_DETECTORS, ConceptDriftMonitor
from mlguard.errors import ConfigError, UsageError
from mlguard.monitors.concept_drift import ConceptDrift
from mlguard.monitors.river_detectors import RiverDetector, estimate_shift
from mlguard.results import Verdict


def numeric():
    draw = random.Random(12345)
    return draw.choices([0, 1], k=1000) + draw.choices(range(4, 8), k=1000)


def binary():
    draw = random.Random(42)
    return draw.choices([0, 1], k=1000) + draw.choices([0, 1], k=1000, weights=[0.3, 0.7])


def alarms(detector, values, *, batch):
    """All alarms on a stream that is handed over in batches."""
    found, start = [], 0
    while start < len(values):
        at = detector.update(values[start : start + batch])
        if at is not None:
            found.append(start + at)
        start += batch if at is None else at + 1
    return found


@pytest.mark.parametrize("batch", [1, 97, 2000])
@pytest.mark.parametrize(
    ("name", "values", "index"),
    [
        ("ADWIN", numeric(), 1023),
        ("PageHinkley", numeric(), 1006),
        ("DDM", binary(), 1334),
        ("HDDM_A", binary(), 1206),
        ("HDDM_W", binary(), 1077),
    ],
)
def test_the_documented_alarms(name, values, index, batch):
    """The one alarm that river's documentation shows, at its very index, however it is fed."""
    assert alarms(RiverDetector(name), values, batch=batch) == [index]


def test_kswin_on_numbers_gives_what_river_gives():
    """With river's documented parameters the documented index; and always the same one."""
    assert alarms(RiverDetector("KSWIN", alpha=0.0001), numeric(), batch=500) == [1016]


@pytest.mark.parametrize("name", RIVER_DETECTORS)
@pytest.mark.parametrize("cut", [0, 1, 617, 1003])
def test_a_restart_changes_nothing(name, cut):
    """A detector that went through JSON alarms where the one that did not does."""
    values = binary() if name in ("DDM", "HDDM_A", "HDDM_W") else numeric()
    steady, first = RiverDetector(name), RiverDetector(name)
    assert alarms(steady, values[:cut], batch=100) == alarms(first, values[:cut], batch=100)
    again = RiverDetector.restore(json.loads(json.dumps(first.snapshot())))
    assert alarms(again, values[cut:1400], batch=50) == alarms(steady, values[cut:1400], batch=50)
    assert (again.n, again.alarms) == (steady.n, steady.alarms)


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("echo pwned",)


@pytest.mark.parametrize("evil", [Evil(), os.path.join, {"a": 1}, random.Random(1)])
def test_a_snapshot_builds_nothing_but_detectors(evil):
    """A forged state runs nothing and is refused."""
    document = RiverDetector("ADWIN").snapshot()
    document["state"] = base64.b64encode(pickle.dumps(evil)).decode()
    with pytest.raises(UsageError, match="snapshot holds no"):
        RiverDetector.restore(document)


def test_another_release_starts_anew():
    """State of another river is not trusted to mean the same."""
    document = RiverDetector("ADWIN").snapshot() | {"river": "0.1"}
    with pytest.raises(UsageError, match=r"river 0\.1"):
        RiverDetector.restore(document)


def test_nan_and_unknown_names_are_refused():
    """Nothing is taken of a batch with a NaN in it."""
    detector = RiverDetector("ADWIN")
    with pytest.raises(UsageError, match="finite"):
        detector.update([0.0, float("nan")])
    assert detector.n == 0
    with pytest.raises(UsageError, match="no detector 'EWMA'"):
        RiverDetector("EWMA")


def test_without_river_the_message_says_what_to_install(monkeypatch):
    """Both where app.toml is read and where a detector is made."""
    monkeypatch.setitem(sys.modules, "river.drift", None)
    with pytest.raises(ConfigError, match="river is not installed") as caught:
        RiverDetector("ADWIN")
    assert "mlguard[river]" in caught.value.hint
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install \"mlguard\[river\]\""):
        ConceptDriftMonitor(detector="ADWIN")


def test_no_promise_no_rollback_unless_asked():
    """River's detectors freeze at most, unless action is written out; the e-detector rolls back."""
    assert ConceptDriftMonitor().action == "rollback"
    assert ConceptDriftMonitor(detector="DDM").action == "freeze"
    assert ConceptDriftMonitor(detector="DDM", action="rollback").action == "rollback"
    with pytest.raises(ValueError, match="block and relearn are the e-detector's"):
        ConceptDriftMonitor(detector="ADWIN", block=5)


@pytest.mark.parametrize("key", ["family_error", "alert_after", "rollback_after"])
def test_keys_of_the_ladder_are_not_the_detector_s(key):
    """What a sequential monitor cannot honour is refused."""
    with pytest.raises(ValueError, match="Extra inputs"):
        ConceptDriftMonitor.model_validate({key: 1})


def test_the_shift_is_where_two_means_differ_most():
    """Either way; a stream of one value has none."""
    rng = np.random.default_rng(0)
    down = np.r_[rng.random(300) < 0.9, rng.random(60) < 0.2].astype(float)
    assert abs(estimate_shift(down).index - 300) <= 3
    assert estimate_shift([1.0]) is None


def feed(monitor, make_window, losses, *, first=1, restart=False, settings=None, app=None):
    results = []
    for start in range(0, len(losses), 60):
        part = np.asarray(losses[start : start + 60], int)
        window = make_window(
            len(part), output=[0] * len(part), label=part.tolist(), first=first + start
        )
        results += monitor.judge(window)
        if restart:
            state = json.dumps(monitor.snapshot(), allow_nan=False)
            monitor = ConceptDrift(settings, REFERENCE, app)
            monitor.restore(json.loads(state))
    return results


REFERENCE = {"loss": {"n": 2000, "n_errors": 400}}


def test_a_monitor_with_a_detector_of_river_s(make_window, app):
    """A rise fails, a fall to what is acceptable warns, and both say that nothing is promised."""
    rng = np.random.default_rng(3)
    losses = np.r_[rng.random(900) < 0.2, rng.random(900) < 0.6, rng.random(900) < 0.1]
    settings = ConceptDriftMonitor(detector="ADWIN", window_rows=300)
    for restart in (False, True):
        monitor = ConceptDrift(settings, REFERENCE, app)
        results = feed(monitor, make_window, losses, restart=restart, settings=settings, app=app)
        told = [one for one in results if "ADWIN found a change" in one.summary]
        assert [one.verdict for one in told] == [Verdict.FAILED, Verdict.WARNED]
        assert all("promises nothing" in one.summary for one in told)
        rise, fall = (one.details["alarm"] for one in told)
        assert abs(rise["change_point"]["label"] - 900) < 30
        assert abs(fall["change_point"]["label"] - 1800) < 30
        assert "average_run_length" not in told[0].details
