"""A report of a project that has lived: what it says is what was recorded."""

import json

import numpy as np
import pytest

from mlguard.reports.build import build_report
from mlguard.reports.facts import report_facts
from mlguard.reports.pictures import Illustrator, figure_over_time
from mlguard.results import Verdict

DAY = 86_400.0


def build(lived, now, **options):
    period = {"since": now - 7 * DAY, "until": now, "now": now, **options}
    return build_report(
        lived.project, lived.settings, lived.registry, lived.log, lived.labels, **period
    )


def test_a_rollback_is_the_first_thing_that_is_told(rolled_back, now):
    """From what to what, what serves, why with the number, and what to type."""
    view = build(rolled_back, now)
    assert view.story.happened == "credit was rolled back from v8 to v7."
    assert view.story.serves.startswith("v7 serves, since ")
    assert "0.51 [0.47, 0.55]" in view.story.why
    assert "quarantined v8" in view.story.did
    assert "New deploys are held." in view.story.did
    assert view.story.command == "mlguard deploy credit --resolves 1"
    assert view.verdict is Verdict.FAILED


def test_drift_is_judged_per_feature_and_the_worst_comes_first(rolled_back, now):
    """What moved is FAILED with its number; what did not move passed."""
    view = build(rolled_back, now)
    drift = {one.feature: one for one in view.drift}
    assert next(iter(drift)) == "duration"
    assert drift["duration"].figure.verdict is Verdict.FAILED
    assert drift["duration"].figure.value > 0.1
    assert drift["purpose"].figure.verdict is Verdict.PASSED
    assert drift["score"].figure.verdict is Verdict.PASSED


def test_outlines_hold_every_row(rolled_back, now):
    """Shares of both sides add up to one, whatever lay beyond the reference."""
    for one in build(rolled_back, now).drift:
        assert sum(one.chart.reference) == pytest.approx(1)
        assert sum(one.chart.current) == pytest.approx(1)
        if one.chart.edges:
            assert np.all(np.diff(one.chart.edges) > 0)
            assert len(one.chart.edges) == len(one.chart.current) + 1


def test_the_error_over_time_has_intervals_versions_and_the_rollback(rolled_back, now):
    """The line covers every labelled answer, and the marks say who answered."""
    [chart] = build(rolled_back, now).performance
    assert sum(one.n or 0 for one in chart.points) == pytest.approx(1800, abs=20)
    assert all(one.low <= one.value <= one.high for one in chart.points if one.value is not None)
    assert [one.label for one in chart.marks if one.kind == "rollback"] == ["back to v7"]
    assert "v8" in [one.label for one in chart.marks]
    assert chart.limit == 0.42


def test_groups_are_compared_and_small_ones_only_named(rolled_back, now):
    """Women were refused wrongly more often; three people of a third group are not shown."""
    chart = next(
        one for one in build(rolled_back, now).groups if one.metric == "false_negative_rate"
    )
    assert "higher for F than for M" in chart.title
    shown = {one.group: one for one in chart.groups}
    assert shown["F"].value > shown["M"].value
    assert shown["X"].value is None
    assert shown["X"].n is None


def test_latest_verdicts_are_kept_per_version(rolled_back, now):
    """A version that was rolled back keeps the verdict that ended it."""
    figures = {(one.id, one.version): one for one in build(rolled_back, now).figures}
    assert figures["concept_drift.error", "v8"].verdict is Verdict.FAILED
    assert figures["concept_drift.error", "v7"].verdict is Verdict.PASSED


def test_what_changed_since_the_period_before_is_named(rolled_back, now):
    """A verdict that became another one is a change; one that stayed is none."""
    view = build(rolled_back, now, since=now - 3 * DAY, until=now - 1.5 * DAY)
    [change] = view.changes
    assert (change.name, change.before, change.after) == (
        "concept_drift.error",
        Verdict.PASSED,
        Verdict.FAILED,
    )


def test_service_gate_and_history_are_told(rolled_back, now):
    """Counts by version, what the gate found, and the audit trail, newest first."""
    view = build(rolled_back, now)
    assert view.service.predictions == 1800
    assert dict(view.service.by_version) == {"v7": 900, "v8": 900}
    assert view.service.latency_p50_ms == 4.0
    assert [one.id for one in view.gate] == ["baseline.beats"]
    assert view.happenings[0].at >= view.happenings[-1].at
    assert "rolled back to v7" in [one.what for one in view.happenings]


def test_default_answers_are_counted_with_their_cause(lived, now):
    """A default answer is nobody's error; it stands under the service with its reason."""
    version = lived.deploy("v1")
    lived.ask(version, now - DAY, now - 10, 400, default=0.5)
    view = build(lived, now)
    assert view.service.defaults > 150
    assert view.service.causes == (("too late", view.service.defaults),)
    [chart] = view.performance
    assert sum(one.n or 0 for one in chart.points) == 400 - view.service.defaults


def test_an_app_that_was_never_deployed_has_a_report(lived, now):
    """Nothing to say is said, with the next step."""
    view = build(lived, now)
    assert view.story.happened == "credit has never been deployed."
    assert view.story.command == "mlguard deploy credit"
    assert view.drift == view.performance == view.groups == ()
    assert view.verdict is Verdict.INCONCLUSIVE


def test_an_app_without_traffic_says_so(lived, now):
    """No rows is no verdict, and no failure."""
    lived.deploy("v1")
    view = build(lived, now)
    assert "was not asked anything" in view.story.happened
    assert view.not_judged == ("There was no traffic in this period.",)


def test_missing_labels_are_told(lived, now):
    """Performance says of how many predictions it is."""
    version = lived.deploy("v1")
    lived.ask(version, now - DAY, now - 10, 300, labelled=0.0)
    view = build(lived, now)
    assert view.performance == ()
    assert view.calibration is None
    assert any("300 of 300 predictions" in one for one in view.not_judged)


def test_a_blocked_app_tells_that_nobody_answers(lived, now):
    """The default output in force comes before everything else."""
    lived.deploy("v1")
    lived.registry.block("credit", "it hurt people")
    view = build(lived, now)
    assert view.story.happened == "credit answers with its default output."
    assert view.story.why == "it hurt people."


def test_an_open_incident_is_told(lived, now):
    """Over its limit, not moved: what, since when, and the choices."""
    version = lived.deploy("v1")
    lived.registry.open_incident(
        "credit",
        monitor="data_drift",
        version_id=version.id,
        summary="duration: KS 0.3",
        facts={},
        level="alert",
    )
    view = build(lived, now)
    assert view.story.happened.startswith("Incident 1 is open on credit")
    assert view.story.why == "duration: KS 0.3."


def test_a_quiet_week_is_told_as_one(lived, now):
    """All within limits, with how many figures and predictions that rests on."""
    version = lived.deploy("v1")
    lived.ask(version, now - DAY, now - 10, 1200)
    view = build(lived, now)
    assert view.story.happened == "All is within its limits on credit."
    assert "1,200 predictions" in view.story.why


def test_a_calibrated_score_is_found_calibrated(lived, now):
    """Labels that were drawn from the scores lie on the diagonal."""
    version = lived.deploy("v1")
    lived.ask(version, now - DAY, now - 10, 1500)
    chart = build(lived, now).calibration
    inside = sum(one.low <= one.predicted <= one.high for one in chart.points)
    assert inside >= len(chart.points) - 2


def test_the_facts_of_the_mail_are_small_and_complete(rolled_back, now):
    """Five answers, the worst figures, at most three charts."""
    facts = report_facts(build(rolled_back, now), link="report.html")
    assert facts["state"] == "3 failed"
    assert facts["figures"][0]["verdict"] == "failed"
    assert [one["chart"] for one in facts["charts"]] == ["time", "drift", "groups"]
    assert len(json.dumps(facts, allow_nan=False)) < 60_000


def test_the_rollback_mail_shows_the_figure_that_led_to_it(rolled_back):
    """Drawn when it is sent, from what the monitor recorded."""
    rows = rolled_back.registry.outbox.rows()
    row = next(one for one in rows if one.kind == "rolled_back")
    chart = figure_over_time(rolled_back.registry, row.facts)
    assert [one.value for one in chart.points] == [0.34, 0.34, 0.51, 0.51, 0.33]
    assert "0.51" in chart.title
    assert chart.limit == 0.42
    [picture] = Illustrator(rolled_back.registry)(row.kind, row.facts)
    assert picture.png.startswith(b"\x89PNG")


def test_a_mail_about_no_figure_has_no_picture(lived):
    """A test message starts no process."""
    assert Illustrator(lived.registry)("test", {"app": "credit"}) == []
    assert Illustrator(lived.registry)("alert", {"app": "credit", "check": "x.y"}) == []


def test_changes_are_told_since_the_last_report(rolled_back, now):
    """Verdicts, and what served, are held against those of the time of the last report."""
    assert build(rolled_back, now).last_report is None
    rolled_back.registry.record("credit", "reported", "the scheduled report", until_s=now - 2 * DAY)
    view = build(rolled_back, now)
    assert view.last_report == now - 2 * DAY
    moves = [one for one in rolled_back.registry.events("credit") if one.moved]
    then = max((one for one in moves if one.at < now - 2 * DAY), key=lambda one: one.seq)
    assert view.served_then == ("" if then.version == "v7" else then.version)
    assert {one.name for one in view.changes} <= {one.name for one in view.figures}


def test_a_report_does_not_send_its_reader_to_itself(rolled_back, now):
    """Whoever reads a report needs no command that makes it."""
    view = build(rolled_back, now)
    assert not any(one.next_step.startswith("mlguard report") for one in view.figures)
    assert not view.story.command.startswith("mlguard report")
