"""A rehearsal: the watcher's own judging on rows that have come and gone."""

import dataclasses

import numpy as np
import pytest

from mlguard.config import AppSettings
from mlguard.deploy.rehearsal import Rehearsal, untimed, with_window
from mlguard.monitors.concept_drift import ConceptDrift
from mlguard.monitors.window import WindowData
from mlguard.policy import Level
from mlguard.results import Verdict

REFERENCE = {
    "loss": {"n": 2000, "n_errors": 200},
    "predicted": {"0": 2000},
    "class_counts": {"0": 1800, "1": 200},
}


def settings(tmp_path, **monitor):
    return AppSettings.model_validate(
        {
            "app": {"description": "d", "owner": "o", "decision": "d", "success_metric": "s"},
            "data": {"test": "test.csv"},
            "monitor": monitor,
            "name": "loan",
            "folder": tmp_path,
        }
    )


def objects(values):
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def rows(wrong, *, times=None, default=None):
    """Rows on which the model answers 0 and the label is 1 where it was wrong."""
    n = len(wrong)
    times = np.arange(n, dtype=float) if times is None else np.asarray(times, float)
    return WindowData(
        version="v1",
        generation=1,
        query_id=np.arange(n),
        time=times,
        columns={},
        output=objects([0] * n),
        score=np.full(n, np.nan),
        default=np.zeros(n, bool) if default is None else np.asarray(default, bool),
        valid=np.ones(n, bool),
        inputs_kept=np.ones(n, bool),
        explanation=objects([None] * n),
        groups=[{} for _ in range(n)],
        label=objects([int(one) for one in wrong]),
        labelled=np.ones(n, bool),
        source=objects(["history"] * n),
        seq=np.arange(1, n + 1),
        arrived=times,
    )


def stream(seed=0):
    rng = np.random.default_rng(seed)
    return np.r_[rng.random(1500) < 0.1, rng.random(700) < 0.5]


def run(tmp_path, data, *, timed=False, label_delay=0, window=None, **monitor):
    found = settings(tmp_path, **monitor)
    if window is not None:
        found = with_window(found, window)
    if not timed:
        found = untimed(found, n_rows=len(data))
    return Rehearsal(
        settings=found, reference=REFERENCE, rows=data, timed=timed, label_delay=label_delay
    ).run()


def of(heard, monitor):
    return [one for one in heard if one.monitor == monitor]


def test_what_is_heard_is_what_one_label_after_another_gives(tmp_path):
    """Rows and verdicts are those of the monitor that gets every label by itself."""
    data = rows(stream())
    found = of(run(tmp_path, data), "concept_drift")
    told = untimed(settings(tmp_path), n_rows=len(data))
    slow = ConceptDrift(told.monitor.concept_drift, REFERENCE, told)
    expected = [
        (place, one)
        for place in range(len(data))
        for one in slow.judge(data.take(slice(place, place + 1)))
    ]
    assert [(one.row, one.result) for one in found] == expected


def test_the_alarm_is_one_and_asks_for_a_rollback(tmp_path):
    """At its row, once, though later windows fail on; other monitors hear the new mix."""
    heard = run(tmp_path, rows(stream()))
    [alarm] = [one for one in of(heard, "concept_drift") if one.alarm]
    assert 1500 <= alarm.row < 1550
    assert alarm.action.level is Level.ROLLBACK
    assert abs(alarm.result.details["alarm"]["change_point"]["query_id"] - 1500) < 15
    later = [one for one in of(heard, "concept_drift") if one.row > alarm.row]
    assert all(one.result.verdict is Verdict.FAILED and not one.alarm for one in later)
    [mix] = [one for one in of(heard, "label_drift") if one.alarm]
    assert mix.row == 1999
    assert mix.action.level is Level.ALERT


def test_labels_that_come_later_are_heard_later(tmp_path):
    """By as many rows; labels that would come after the end are not heard at all."""
    data = rows(stream())
    [prompt] = [one.row for one in of(run(tmp_path, data), "concept_drift") if one.alarm]
    late = run(tmp_path, data, label_delay=200)
    [alarm] = [one for one in of(late, "concept_drift") if one.alarm]
    assert alarm.row == prompt + 200
    assert max(one.result.details["labels"] for one in of(late, "concept_drift")) <= 2000
    assert of(run(tmp_path, data, label_delay=5000), "concept_drift") == []


def test_windows_are_cut_as_the_watcher_cuts_them(tmp_path):
    """Whole ones only, and with --window as long as it says."""
    heard = of(run(tmp_path, rows(stream()), window=300), "prediction_drift")
    assert [one.row for one in heard] == [299, 599, 899, 1199, 1499, 1799, 2099]
    assert {one.result.window.n_rows for one in heard} == {300}


def test_a_broken_model_is_found_before_its_window_is_full(tmp_path):
    """The early looks are the watcher's, and the next window starts after the look."""
    default = np.arange(1000) >= 500
    data = rows(np.zeros(1000), default=default)
    data = dataclasses.replace(
        data, explanation=objects(["it raised" if one else None for one in default])
    )
    heard = [one for one in of(run(tmp_path, data), "service") if one.alarm]
    assert heard[0].row == 519
    assert heard[0].result.id == "service.model_errors"
    assert heard[0].action.level is Level.ROLLBACK


def test_time_brings_grace_and_cooldown(tmp_path):
    """With times a drift within the grace is deferred, and a second move waits."""
    wrong = np.r_[np.zeros(20), np.ones(900)]
    times = np.r_[np.linspace(0, 10, 40), 10 + np.arange(880) * 2.0]
    heard = of(run(tmp_path, rows(wrong, times=times), timed=True), "concept_drift")
    first = next(one for one in heard if one.alarm)
    assert first.at < 600
    assert (first.action.level, first.action.deferred) == (Level.NONE, "grace")
    asked = [one for one in heard if one.action.level is Level.ROLLBACK]
    assert asked
    assert asked[0].at >= 600
    off = of(run(tmp_path, rows(wrong)), "concept_drift")
    assert next(one for one in off if one.alarm).action.level is Level.ROLLBACK


def test_a_monitor_that_raises_is_errored_and_the_others_go_on(tmp_path, monkeypatch):
    """Never PASSED, never FAILED; what it had before stands."""
    judge = ConceptDrift.judge

    def sometimes(self, window):
        if 300 in window.query_id:
            raise RuntimeError("no such day")
        return judge(self, window)

    monkeypatch.setattr(ConceptDrift, "judge", sometimes)
    heard = run(tmp_path, rows(stream()))
    errored = [one for one in heard if one.result.verdict is Verdict.ERRORED]
    assert [one.result.summary for one in errored] == [
        "the monitor raised RuntimeError: no such day"
    ]
    assert any(one.alarm for one in of(heard, "concept_drift"))
    assert of(heard, "service")


@pytest.mark.parametrize("enabled", [True, False])
def test_a_monitor_that_is_off_is_not_heard(tmp_path, enabled):
    """``enabled`` counts here as it does live."""
    heard = run(tmp_path, rows(stream()), service={"enabled": enabled})
    assert bool(of(heard, "service")) is enabled
