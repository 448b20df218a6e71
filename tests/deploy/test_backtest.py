"""``mlguard backtest`` and ``calibrate`` on streams whose changes are known."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from mlguard import Project
from mlguard.cli import rehearsing
from mlguard.cli.app import app as commands
from mlguard.errors import DataError, UsageError
from mlguard.models.formats import save_model
from mlguard.results import Verdict

STREAMS = {
    "sine": ("lobo_sine_0123_abrupto/sine_0123_abrupto.csv.gz", 0.1, ["X1", "X2"]),
    "elec2": (
        "elec2/electricity.csv.gz",
        0.2,
        ["date", "day", "period", "nswprice", "nswdemand"],
    ),
    "insects": (
        "insects_gradual_balanced/insects_gradual_balanced.csv.gz",
        0.1,
        [f"Att{place}" for place in range(1, 34)],
    ),
}

APP = """
[app]
description = "a stream"
owner = "ann@example.com"
decision = "none"
success_metric = "none"
input = "table"
[data]
test = "test.csv"
target = "class"
features = {features}
[model]
path = "model.skops"
"""


@pytest.fixture(scope="module")
def streams(tmp_path_factory, request):
    """Make a project for a stream: a static model of its first rows, tested on those rows."""
    root = tmp_path_factory.mktemp("streams")
    (root / "mlguard.toml").write_text("")
    made = {}

    def make(name, shared, extra=""):
        app = name + str(len(made))
        file, share, features = STREAMS[name]
        frame = pd.read_csv(shared / "drift" / file)
        folder = root / "serving" / app
        folder.mkdir(parents=True)
        first = frame.iloc[: int(len(frame) * share)]
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        save_model(model.fit(first[features], first["class"]), folder / "model.skops")
        first.to_csv(folder / "test.csv", index=False)
        frame.to_parquet(folder / "all.parquet")
        (folder / "app.toml").write_text(APP.format(features=json.dumps(features)) + extra)
        made[app] = folder
        return Project(root), app, folder / "all.parquet"

    return make


def monitor(done, name):
    return next(one for one in done.summary["monitors"] if one["monitor"] == name)


def test_the_sine_stream(streams, shared_data, tmp_path):
    """The harmful change within 50 labels, nothing before it, and one document for programs."""
    project, app, data = streams("sine", shared_data)
    plot = tmp_path / "loss.png"
    done = project.backtest(app, data, change=10_000, plot=plot)
    found = monitor(done, "concept_drift")
    assert found["alarms_before_change"] == 0
    assert 0 <= found["delay"] < 50
    assert found["action"] == "rollback"
    assert not any(one.alarm and one.row < 10_000 for one in done.heard)
    assert done.summary["reference_loss"] == pytest.approx(0.0185, abs=0.005)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert all(len(line) <= 78 for line in done.lines if not line.startswith("Wrote "))
    document = json.loads(json.dumps(done.to_json(), allow_nan=False))
    [alarm] = [one for one in document["events"] if one["alarm"]]
    keys = {"row", "time", "monitor", "subject", "verdict", "value", "limit", "n", "action"}
    assert keys <= set(alarm)
    assert (alarm["verdict"], alarm["action"]) == ("failed", "rollback")
    assert alarm["delay"] == found["delay"] == alarm["row"] - 10_000
    assert abs(alarm["change_point"] - 10_000) <= 2
    assert "1970" not in alarm["summary"]
    # Nothing was registered and nothing serves.
    assert project.registry.versions(app) == []


def test_learned_at_row_20000(streams, shared_data):
    """The reference is that of 2,000 rows there (error .25), and the rise to .75 is found."""
    project, app, data = streams("sine", shared_data)
    done = project.backtest(app, data, start=20_000, change=30_000)
    found = monitor(done, "concept_drift")
    assert found["alarms_before_change"] == 0
    assert 0 <= found["delay"] < 50
    assert (done.summary["first_row"], done.summary["reference_rows"]) == (22_000, 2000)
    assert done.summary["reference_loss"] == pytest.approx(0.25, abs=0.03)


@pytest.mark.soak
def test_adwin_finds_all_three(streams, shared_data):
    """Two for the worse, one for the better; it promises nothing, and freezes at most."""
    detector = '[monitor.concept_drift]\ndetector = "ADWIN"\n'
    project, app, data = streams("sine", shared_data, detector)
    done = project.backtest(app, data)
    found = monitor(done, "concept_drift")
    assert len(found["alarms"]) == 3
    for row, change in zip(found["alarms"], (10_000, 20_000, 30_000), strict=True):
        assert 0 <= row - change < 100
    assert found["action"] == "freeze"
    assert done.summary["false_alarm_promise"] is False
    assert any("no promise" in line for line in done.lines)


@pytest.mark.soak
def test_elec2_beside_the_predictor_that_repeats_itself(streams, shared_data):
    """The published figure beside the model's own; runs of errors are told with their price."""
    project, app, data = streams("elec2", shared_data)
    done = project.backtest(app, data, change=17_424)
    assert done.summary["no_change_loss"] == pytest.approx(0.1467, abs=0.0001)
    assert done.summary["loss"] > 0.4
    assert any("0.1467" in line for line in done.lines)
    assert done.summary["lag1_correlation"] > 0.5
    assert done.summary["kept_run_length"] < 2000
    assert done.summary["block_needed"] >= 50


@pytest.mark.soak
@pytest.mark.parametrize(
    ("start", "change", "monitors"),
    [
        (None, 3240, ("label_drift", "prediction_drift")),
        (4000, 10_465, ("label_drift", "prediction_drift")),
        (11_773, 13_950, ("label_drift",)),
    ],
)
def test_the_insects_class_mix(streams, shared_data, start, change, monitors):
    """Each of the shifts in the mix is found by the monitors of labels and of answers."""
    project, app, data = streams("insects", shared_data)
    done = project.backtest(app, data, start=start, change=change)
    for name in monitors:
        found = monitor(done, name)
        assert found["alarms_before_change"] == 0, name
        assert found["delay"] is not None, name
        assert found["delay"] < 1000, name


@pytest.mark.soak
@pytest.mark.marathon
@pytest.mark.parametrize("name", list(STREAMS))
def test_a_shuffled_stream_is_calm(streams, shared_data, name, tmp_path):
    """Stationary by construction: at most 1 of 10 seeds raises an alarm, whatever the monitor."""
    project, app, data = streams(name, shared_data)
    frame = pd.read_parquet(data)
    alarmed = 0
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(frame))
        shuffled = tmp_path / f"{seed}.parquet"
        frame.iloc[order].reset_index(drop=True).to_parquet(shuffled)
        done = project.backtest(app, shuffled, start=0)
        alarmed += bool(done.alarms)
    assert alarmed <= 1


def small(folder, *, n=3000, rise=None, time=False, seed=0):
    """A file of rows on which a model that says x > 0 is wrong 5 % of the time, later 60 %."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    wrong = rng.random(n) < np.where(np.arange(n) >= (n if rise is None else rise), 0.6, 0.05)
    frame = pd.DataFrame({"x": x, "class": ((x > 0) ^ wrong).astype(int)})
    if time:
        frame["at"] = pd.date_range("2026-01-01", periods=n, freq="min")
    frame.to_csv(folder, index=False)
    return frame


@pytest.fixture
def plain(tmp_path):
    """A project with one small app, and data of its past."""
    folder = tmp_path / "serving" / "loan"
    folder.mkdir(parents=True)
    (tmp_path / "mlguard.toml").write_text("")
    (folder / "app.toml").write_text(APP.format(features='["x"]'))
    frame = small(folder / "test.csv", seed=1)
    save_model(LogisticRegression().fit(frame[["x"]], frame["class"]), folder / "model.skops")
    return Project(tmp_path), folder


def test_a_model_of_ones_own_and_times(plain, tmp_path):
    """An estimator may be handed in; with a time column events have times."""
    project, folder = plain
    file = folder / "app.toml"
    file.write_text(file.read_text().replace('target = "class"', 'target = "class"\ntime = "at"'))
    small(folder / "test.csv", time=True)
    frame = small(tmp_path / "past.csv", rise=2000, time=True)
    model = LogisticRegression().fit(frame[["x"]], frame["x"] > 0)
    model.classes_ = np.array([0, 1])
    done = project.backtest("loan", tmp_path / "past.csv", model=model, change=2000)
    [alarm] = [
        one for one in done.to_json()["events"] if one["alarm"] and "concept" in one["check"]
    ]
    assert alarm["time"].startswith("2026-01-02T")
    assert 0 <= alarm["delay"] < 50
    assert any("2026-01-02" in line for line in done.lines)


def test_the_version_that_serves_is_asked(world, tmp_path):
    """What is active is loaded from the registry and named, not whatever lies in the folder."""
    world.deploy("v1", (1.0, 1.0))
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(1000, 2)), columns=["income", "debt"])
    frame["paid"] = (frame.sum(axis=1) > 0).astype(int)
    frame["sex"] = np.where(np.arange(1000) % 2, "F", "M")
    frame.to_csv(world.root / "serving" / "loan" / "test.csv", index=False)
    frame.to_csv(tmp_path / "past.csv", index=False)
    done = Project(world.root).backtest("loan", tmp_path / "past.csv")
    assert done.model == "v1"
    assert done.summary["loss"] < 0.05
    assert {one["monitor"] for one in done.summary["monitors"]} >= {"concept_drift", "service"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 5000}, "leaves no row to judge"),
        ({"change": 9000}, "not among the rows"),
        ({"plot": "loss.svg"}, "pictures are PNG"),
    ],
)
def test_options_that_make_no_sense(plain, tmp_path, options, message):
    """Refused with what there is."""
    from pathlib import Path

    project, _ = plain
    small(tmp_path / "past.csv", n=600)
    if "plot" in options:
        options = {"plot": Path(options["plot"])}
    with pytest.raises(UsageError, match=message):
        project.backtest("loan", tmp_path / "past.csv", **options)


def test_data_that_cannot_be_replayed(plain, tmp_path):
    """No labels, or times that go back, are refused by name."""
    project, folder = plain
    frame = small(tmp_path / "past.csv", n=600, time=True)
    frame.drop(columns="class").to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(DataError, match="class"):
        project.backtest("loan", tmp_path / "bare.csv")
    file = folder / "app.toml"
    file.write_text(file.read_text().replace('target = "class"', 'target = "class"\ntime = "at"'))
    frame.iloc[::-1].to_csv(tmp_path / "back.csv", index=False)
    with pytest.raises(DataError, match="do not rise"):
        project.backtest("loan", tmp_path / "back.csv")


def test_rows_without_labels_are_rows_all_the_same(plain, tmp_path):
    """They are answered and counted, and judged by what needs no label."""
    project, _ = plain
    frame = small(tmp_path / "past.csv", n=1200)
    frame.loc[600:, "class"] = np.nan
    frame.to_csv(tmp_path / "half.csv", index=False)
    done = project.backtest("loan", tmp_path / "half.csv")
    assert (done.summary["rows"], done.summary["labels"]) == (1200, 600)
    assert sum(monitor(done, "prediction_drift")["verdicts"].values()) == 2
    assert sum(monitor(done, "label_drift")["verdicts"].values()) == 1


def test_few_rows_give_no_empty_table(plain, tmp_path):
    """Who gave no verdict is named; a table is for rows that there are."""
    project, _ = plain
    small(tmp_path / "few.csv", n=30)
    lines = project.backtest("loan", tmp_path / "few.csv").lines
    assert "alarms at row" not in " ".join(lines)
    assert "Without a verdict on these rows: concept drift, data drift," in " ".join(lines)


def test_the_commands(plain, tmp_path):
    """Exit 0 with an alarm, one JSON document on stdout, and a table for people."""
    assert rehearsing.app is commands
    project, _ = plain
    small(tmp_path / "past.csv", rise=2000)
    told = ["--project", str(project.root)]
    run = CliRunner().invoke(
        commands, ["backtest", "loan", str(tmp_path / "past.csv"), "--change", "2000", *told]
    )
    assert run.exit_code == 0
    assert "✗ failed" in run.stdout
    assert "rollback (+" in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    run = CliRunner().invoke(
        commands, ["backtest", "loan", str(tmp_path / "past.csv"), "--json", *told]
    )
    document = json.loads(run.stdout)
    assert document["command"] == "backtest"
    assert document["summary"]["rows"] == 3000


def test_calibrate_on_the_test_data(plain):
    """No false alarm beyond the promise, power that rises, and the same figures again."""
    project, _ = plain
    done = project.calibrate("loan")
    again = project.calibrate("loan")
    assert done.to_json() == again.to_json()
    document = done.to_json()
    found = {one["monitor"]: one for one in document["monitors"]}
    assert {"concept_drift", "data_drift", "label_drift", "prediction_drift", "service"} <= set(
        found
    )
    concept = found["concept_drift"]
    assert concept["interval"][0] <= concept["promised_rate"]
    powers = [one["power"] for one in concept["power"]]
    assert powers == sorted(powers)
    assert powers[-1] == 1.0
    assert 0.05 <= concept["smallest_detectable_effect"] <= 0.2
    assert document["suggestions"] == []
    for one in found.values():
        low, high = one["interval"]
        assert low <= one["false_alarm_rate"] <= high
    assert all(len(line) <= 78 for line in done.lines)


@pytest.mark.soak
def test_calibrate_sees_runs_of_errors(plain):
    """Errors in runs: drawn in blocks, alarms come too often, and a block is proposed."""
    project, folder = plain
    frame = small(folder / "test.csv", n=4000)
    wrong, last = [], 0.0
    for draw in np.random.default_rng(4).random(4000):
        last = float(draw < 0.1 + 0.6 * (last - 0.1))
        wrong.append(bool(last))
    frame["class"] = ((frame["x"] > 0) ^ np.array(wrong)).astype(int)
    frame.to_csv(folder / "test.csv", index=False)
    done = project.calibrate("loan")
    assert 0.4 < done.rho < 0.8
    assert done.drawn > 5
    document = done.to_json()
    concept = next(one for one in document["monitors"] if one["monitor"] == "concept_drift")
    assert concept["kept_run_length"] < 5000
    [change] = [one for one in document["suggestions"] if one["key"] == "block"]
    assert change["value"] >= 25
    file = folder / "app.toml"
    file.write_text(file.read_text() + f"[monitor.concept_drift]\nblock = {change['value']:.0f}\n")
    calm = next(
        one
        for one in project.calibrate("loan").to_json()["monitors"]
        if one["monitor"] == "concept_drift"
    )
    assert calm["false_alarms"] < concept["false_alarms"] or concept["false_alarms"] == 0
    assert calm["interval"][0] <= calm["promised_rate"]


def test_verdict_words_are_those_of_live_results(plain, tmp_path):
    """A program that reads live results reads these: the same values of the same enum."""
    project, _ = plain
    small(tmp_path / "past.csv", n=600)
    done = project.backtest("loan", tmp_path / "past.csv")
    assert {one["verdict"] for one in done.to_json()["events"]} <= {one.value for one in Verdict}
