"""Feedback that somebody poisons, or that comes late: refused or undecided, and nothing moves."""

import numpy as np
import pytest

from mlguard.registry import State
from mlguard.results import Verdict

NARROW, WIDE = (1.0, 0.0), (1.0, 1.0)
USUAL = [f"clinic-{place}" for place in range(6)]


@pytest.fixture
def two(world):
    """A version that could be gone back to, and one that serves and is right."""
    world.deploy("v1", NARROW)
    world.deploy("v2", WIDE)
    return world


def label(world, ids, truth, sources):
    world.labels.put_many(
        [
            (query_id, int(one), sources[place % len(sources)], world.clock.now)
            for place, (query_id, one) in enumerate(zip(ids, truth, strict=True))
        ]
    )
    world.pass_time(1.0)


def calm(world, watcher, n=600):
    """Let usual sources say that all is well."""
    rows = world.rows(n)
    label(world, world.serve(rows), world.truth(rows), USUAL)
    world.run(watcher)


def test_one_source_that_sends_most_of_the_labels_moves_nothing(two):
    """Nine in ten labels of a window, all turned round, from one of six sources."""
    watcher = two.watcher()
    calm(two, watcher)
    rows = two.rows(600)
    flood = ["clinic-0"] * 9 + ["clinic-1"]
    label(two, two.serve(rows), 1 - two.truth(rows), flood)
    two.run(watcher)
    assert two.active() == "v2"
    found = two.results("concept_drift")
    assert {one.reason for one in found if one.verdict is Verdict.INCONCLUSIVE} == {
        "suspect_source"
    }
    assert not [one for one in found if one.verdict is Verdict.FAILED]


def test_windows_of_groups_and_of_labels_suspect_a_source_too(two):
    """Nine in ten labels from one of six sources: undecided, where the same from all is found."""
    two.configure(
        "[monitor.fairness]\nenabled = false",
        "[monitor.fairness]\nwindow_rows = 400\n[monitor.label_drift]\nwindow_rows = 400\n"
        "[monitor.concept_drift]\nenabled = false",
    )
    for version in ("v1", "v2"):
        digest = two.registry.version("loan", version).digest
        document = two.registry.reference("loan", digest)
        classes = {"class_counts": {"0": 2000, "1": 2000}}
        two.registry.set_reference("loan", digest, document | classes)
    watcher = two.watcher()

    def labelled(sources):
        """Women's labels are all 1, whatever was answered."""
        rows, sex = two.rows(410), np.where(np.arange(410) % 2, "F", "M")
        truth = np.where(sex == "F", 1, two.truth(rows))
        label(two, two.serve(rows, sex=sex), truth, sources)
        two.run(watcher)

    calm(two, watcher)
    labelled(["clinic-0"] * 9 + ["clinic-1"])
    for name in ("fairness.accuracy_difference", "label_drift"):
        assert two.results(name)[-1].reason == "suspect_source", name
    assert two.active() == "v2"
    labelled(USUAL)
    labelled(USUAL)
    for name in ("fairness.accuracy_difference", "label_drift"):
        found = {one.verdict for one in two.results(name)}
        assert found & {Verdict.FAILED, Verdict.WARNED}, name


def test_the_share_that_is_suspicious_is_set_in_app_toml(two):
    """Who allows one source everything is told of the drift that it reports."""
    two.configure("[auto]", "[labels]\nmax_source_share = 1.0\n[auto]")
    watcher = two.watcher()
    calm(two, watcher)
    rows = two.rows(600)
    label(two, two.serve(rows), 1 - two.truth(rows), ["clinic-0"])
    two.run(watcher)
    assert [one for one in two.results("concept_drift") if one.verdict is Verdict.FAILED]


def test_labels_of_who_is_not_trusted_judge_nothing(two):
    """They are kept, and count neither as errors nor as labels that have come."""
    two.configure("[auto]", '[labels]\ntrusted_sources = ["audit"]\n[auto]')
    watcher = two.watcher()
    rows = two.rows(600)
    label(two, two.serve(rows), 1 - two.truth(rows), ["stranger"])
    two.run(watcher)
    assert two.active() == "v2"
    assert two.results("concept_drift") == []
    assert len(two.labels) == 600
    rows = two.rows(600)
    label(two, two.serve(rows), two.truth(rows), ["audit"])
    two.run(watcher)
    assert {one.verdict for one in two.results("concept_drift")} == {Verdict.PASSED}


def test_the_same_labels_again_count_once(two):
    """A replay of everything that was sent is nothing new."""
    watcher = two.watcher()
    rows = two.rows(600)
    ids = two.serve(rows)
    for _ in range(5):
        label(two, ids, two.truth(rows), USUAL)
    two.run(watcher)
    assert len(two.labels) == 600
    n = sum(one.window.n_labels for one in two.results("concept_drift"))
    assert n <= 600


def test_a_second_opinion_is_a_conflict_and_changes_nothing(two):
    """Labels that are turned round after they were judged: the first ones stay."""
    watcher = two.watcher()
    rows = two.rows(600)
    ids = two.serve(rows)
    label(two, ids, two.truth(rows), USUAL)
    two.run(watcher)
    label(two, ids, 1 - two.truth(rows), USUAL)
    two.run(watcher)
    assert two.labels.conflicts() == 600
    assert two.active() == "v2"
    assert {one.verdict for one in two.results("concept_drift")} == {Verdict.PASSED}


def test_ids_that_nobody_was_given_move_nothing(two):
    """Forged ids that slipped into the store belong to no version: they are passed over."""
    watcher = two.watcher()
    forged = np.arange(2**40, 2**40 + 300)
    label(two, forged.tolist(), np.zeros(300), USUAL)
    two.run(watcher)
    assert two.active() == "v2"
    assert two.results("concept_drift") == []


def test_labels_that_come_after_the_rollback_are_credited_to_who_answered(two):
    """They say that the version which is gone was wrong, and nothing of the one that serves."""
    watcher = two.watcher()
    rows = two.rows(1200)
    ids = two.serve(rows)
    wrong = 1 - two.truth(rows)
    two.label(ids[:600], wrong[:600])
    two.run(watcher)
    assert two.active() == "v1"
    bad = two.registry.version("loan", "v2")
    assert bad.state is State.QUARANTINED
    two.label(ids[600:], wrong[600:])
    two.pass_time(7200)
    two.run(watcher)
    assert two.active() == "v1"
    assert {one.version for one in two.results("concept_drift")} == {"v2"}
