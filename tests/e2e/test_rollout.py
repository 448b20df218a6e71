"""A rollout as its user types it: a server, traffic without a pause, and `mlguard deploy`."""

import json
import signal
import subprocess
import sys
import threading

import httpx
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from mlguard.cli.starting import write_template
from mlguard.models.formats import save_model
from mlguard.project import Project
from mlguard.registry import State

pytestmark = [pytest.mark.soak, pytest.mark.marathon]

STEPS = """
[gate.baseline.no_worse_than]
enabled = false
[rollout]
steps = ["shadow", 0.5]
step_min_time = "1s"
step_deadline = "15m"
step_min_rows = 40
alpha = 0.3
"""
ROWS, TRUTH = load_iris(return_X_y=True)


class Callers(threading.Thread):
    """Ask and label without a pause, as forty people with names."""

    def __init__(self, url):
        super().__init__()
        self.url, self.stopping = url, threading.Event()
        self.statuses, self.seen, self.versions = set(), {}, set()

    def run(self):
        # Only those that a tree of one split gets wrong half of the time.
        rows = [place for place, label in enumerate(TRUTH) if label]
        with httpx.Client(base_url=self.url, timeout=60) as client:
            n = 0
            while not self.stopping.is_set():
                place = rows[n % len(rows)]
                n += 1
                body = {"input": ROWS[place].tolist(), "uid": f"u{n % 40}"}
                reply = client.post("/iris/predict", json=body)
                self.statuses.add(reply.status_code)
                version = reply.headers["X-MLGuard-Version"]
                self.versions.add(version)
                self.seen.setdefault((version, f"u{n % 40}"), 0)
                label = {"query_id": reply.json()["query_id"], "label": int(TRUTH[place])}
                self.statuses.add(client.post("/iris/update", json=label).status_code)


@pytest.fixture
def project(tmp_path):
    """The project that `mlguard init` writes, with steps and two more models."""
    folder = tmp_path / "project"
    write_template("project_template", folder)
    file = folder / "serving" / "iris" / "app.toml"
    # It would refuse the worse version, which is to be found out by its callers here.
    (folder / "checks" / "iris" / "test_iris.py").unlink()
    head, _, _ = file.read_text().partition("# A new version must be shown")
    file.write_text(head + STEPS)
    data = pytest.importorskip("pandas").DataFrame(
        ROWS, columns=["sepal_length", "sepal_width", "petal_length", "petal_width"]
    )
    for name, model in {
        "better": LogisticRegression(C=2.0, max_iter=2000),
        "worse": DecisionTreeClassifier(max_depth=1, random_state=0),
    }.items():
        save_model(model.fit(data, TRUTH), folder / f"{name}.skops")
    return folder


def mlguard(folder, *words, wait=True):
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlguard.cli", *words, "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not wait:
        return process
    out, err = process.communicate(timeout=900)
    assert out, err
    return json.loads(out)


def test_a_good_version_goes_live_a_bad_one_is_out_and_a_killed_deployer_leaves_nothing(
    project, running, wait_until
):
    """Shadow, canary, everybody; then quarantine, exit 1; then a kill -9: no request is lost."""
    with running("up", "--port", "0", folder=project) as (_, url, _):
        callers = Callers(url)
        callers.start()
        try:
            done = mlguard(project, "deploy", "iris", "--model", "better.skops")
            assert (done["exit_code"], done["to"]) == (0, "v2"), done
            assert done["active"]["state"] in ("BAKING", "LIVE")
            kinds = [one.kind for one in Project(project).registry.events("iris", limit=12)]
            steps = [one for one in kinds if one in ("promoted", "canary", "shadowed")]
            assert steps[:3] == [
                "promoted",
                "canary",
                "shadowed",
            ]

            confirmed = mlguard(project, "confirm", "iris", "--reason", "looks well")
            assert (confirmed["exit_code"], confirmed["changed"]) == (0, True)
            again = mlguard(project, "confirm", "iris")
            assert (again["exit_code"], again["changed"]) == (0, False)

            done = mlguard(project, "deploy", "iris", "--model", "worse.skops")
            assert (done["exit_code"], done["ok"]) == (1, False), done
            assert done["active"]["version"] == "v2"
            registry = Project(project).registry
            assert registry.version("iris", "v3").state is State.QUARANTINED
            assert done["incident"] == registry.version("iris", "v3").incident
            assert "v3" not in callers.versions

            # The one before, again, as a canary whose deployer is killed.
            killed = mlguard(
                project, "deploy", "iris", "--model", "serving/iris/model.skops", wait=False
            )
            wait_until(
                lambda: (one := registry.rolling("iris")) is not None and one.operation.step >= 0,
                "the first step",
            )
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
            wait_until(lambda: registry.rolling("iris") is None, "the drain of what was killed")
            assert registry.version("iris", "v1").state is State.STANDBY
            assert registry.app("iris").active.name == "v2"
        finally:
            callers.stopping.set()
            callers.join()
        assert callers.statuses == {200}
        nothing = mlguard(project, "abort", "iris")
        assert (nothing["exit_code"], nothing["changed"]) == (0, False)
        tried = mlguard(project, "rollback", "iris", "--dry-run", "--reason", "what if")
        assert (tried["exit_code"], tried["to"], tried["changed"]) == (0, "v1", False), tried
