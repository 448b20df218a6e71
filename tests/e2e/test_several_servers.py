"""Two real servers on one registry: one is stopped, deployed around, and catches up (fault 14)."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from mlguard.cli.starting import write_template
from mlguard.project import Project


def asked(url, row):
    """Return status and headers of a prediction."""
    body = json.dumps({"input": row}).encode()
    request = urllib.request.Request(f"{url}/iris/predict", data=body)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, answer.headers, json.load(answer)


def typed(folder, *words):
    """Type a command; return its exit code and its document."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mlguard.cli", *words, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def another_model(project):
    """A second model that passes the same gate: the same one with another random state."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    from mlguard.models.formats import save_model

    frame = pd.read_csv(project / "serving/iris/data/train.csv")
    model = LogisticRegression(C=2.0, max_iter=2000)
    path = project / "second.skops"
    save_model(model.fit(frame.drop(columns="species"), frame["species"]), path)
    return path


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.marathon
def test_a_server_that_is_stopped_is_named_and_catches_up(tmp_path, running, wait_until):
    """Deploy exits 8 naming it, then 7; the other serves the new version; SIGCONT is enough."""
    folder = tmp_path / "project"
    write_template("project_template", folder)
    assert Project(folder).deploy("iris").exit_code == 0
    second = another_model(folder)
    row = [5.1, 3.5, 1.4, 0.2]
    with (
        running("serve", "--port", "0", "--no-monitors", folder=folder) as (_, one, _out),
        running("serve", "--port", "0", "--no-monitors", folder=folder) as (_, two, _other),
    ):
        registry = Project(folder).registry
        wait_until(lambda: len(registry.live_servers()) == 2, "both servers to say hello")
        for url in (one, two):
            assert asked(url, row)[1]["X-MLGuard-Version"] == "v1"
        stopped = next(server for server in registry.live_servers() if server.url == two)
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            code, document = typed(folder, "deploy", "iris", "--model", str(second))
            assert code == 8, document
            assert stopped.id in document["error"]["message"]
            wait_until(
                lambda: asked(one, row)[1]["X-MLGuard-Version"] == "v2", "the other to switch"
            )
            code, document = typed(folder, "deploy", "iris", "--model", str(second))
            assert (code, document["changed"]) == (7, False)
            code, document = typed(folder, "status", "iris")
            assert code == 7
            assert any(stopped.id in reason for reason in document["degraded"])
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        wait_until(lambda: asked(two, row)[1]["X-MLGuard-Version"] == "v2", "it to catch up")
        assert asked(two, row)[1]["X-MLGuard-Generation"] == "2"
        wait_until(lambda: typed(folder, "status", "iris")[0] == 0, "status to be well again")


@pytest.mark.soak
@pytest.mark.marathon
def test_a_server_without_its_registry_serves_on_and_says_so(tmp_path, running, wait_until):
    """The file is gone: 200 with the last version, /readyz says degraded; back, it is well."""
    folder = tmp_path / "project"
    write_template("project_template", folder)
    assert Project(folder).deploy("iris").exit_code == 0
    row = [5.1, 3.5, 1.4, 0.2]

    def ready(url):
        with urllib.request.urlopen(f"{url}/readyz", timeout=30) as answer:
            return json.load(answer)

    with running("serve", "--port", "0", "--no-monitors", folder=folder) as (_, url, _out):
        assert "degraded" not in ready(url)
        state = folder / ".mlguard"
        moved = [path for path in state.glob("registry.db*") if path.is_file()]
        aside = tmp_path / "aside"
        aside.mkdir()
        for path in moved:
            path.rename(aside / path.name)
        said = wait_until(lambda: ready(url).get("degraded"), "/readyz to say so")
        assert "the registry cannot be read" in said[0]
        status, headers, answer = asked(url, row)
        assert (status, headers["X-MLGuard-Version"], answer["default"]) == (200, "v1", False)
        code, document = typed(folder, "status", "iris")
        assert code == 3
        assert "missing" in document["error"]["message"]
        assert not (state / "registry.db").exists()
        for path in moved:
            (aside / path.name).rename(path)
        wait_until(lambda: "degraded" not in ready(url), "/readyz to be well again")
