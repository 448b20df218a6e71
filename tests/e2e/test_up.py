"""`mlguard up` as a new user meets it: asked with curl, killed, stopped with Ctrl-C."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading

import httpx
import psutil
import pytest

from mlguard.cli.starting import write_template
from mlguard.data.labels import LabelStore, default_url
from mlguard.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path):
    """The project that `mlguard init` writes, nothing trained or deployed yet."""
    folder = tmp_path / "project"
    write_template("project_template", folder)
    return folder


def front_end(process):
    """Return the process that answers requests."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if "mlguard.server_app" in child.cmdline():
            return child
    return None


class Caller(threading.Thread):
    """Asks and labels without a pause, and remembers what was acknowledged."""

    def __init__(self, url):
        super().__init__()
        self.url = url
        self.stopping = threading.Event()
        self.acknowledged = {}
        self.failed = 0
        self.statuses = set()

    def run(self):
        while not self.stopping.is_set():
            with httpx.Client(base_url=self.url, timeout=30) as client:
                try:
                    while not self.stopping.is_set():
                        self.ask(client)
                # What a killed process held is lost to its caller, whatever that sees of it;
                # how often is counted, and what was answered is judged below.
                except Exception:  # noqa: BLE001
                    self.failed += 1

    def ask(self, client):
        answer = client.post("/iris/predict", json={"input": [6.1, 2.9, 4.7, 1.4]})
        self.statuses.add(answer.status_code)
        query_id = answer.json()["query_id"]
        label = client.post("/iris/update", json={"query_id": query_id, "label": 1})
        if label.status_code == 200:
            self.acknowledged[query_id] = 1


def test_up_answers_the_slides_call_survives_a_kill_and_stops_cleanly(project, running, wait_until):
    """From nothing to an answer; a kill -9 under traffic loses no acknowledged label."""
    with running("up", "--port", "0", folder=project) as (process, url, out):
        if shutil.which("curl"):
            # Exactly as on the slides: no Content-Type of ours.
            body = '{"input": [4.3, 2.0,1.0, 0.1]}'
            said = subprocess.run(
                ["curl", "-sS", "-X", "POST", "-d", body, f"{url}/iris/predict"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            answer = json.loads(said)
            assert (answer["output"], answer["default"]) == (0, False)
        assert "curl -X POST" in out.read_text()
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert "mlguard" in httpx.get(f"{url}/metrics").text

        caller = Caller(url)
        caller.start()
        wait_until(lambda: len(caller.acknowledged) > 50, "labels to be acknowledged")
        victim = front_end(process)
        victim.kill()
        before = len(caller.acknowledged)
        wait_until(lambda: len(caller.acknowledged) > before + 50, "answers after the kill")
        caller.stopping.set()
        caller.join()
        assert front_end(process).pid != victim.pid
        assert caller.statuses == {200}
        assert caller.failed <= 2

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    url = default_url(Project(project).settings.log_dir, "iris")
    with contextlib.closing(LabelStore(url)) as labels:
        stored = labels.get(list(caller.acknowledged))
    assert {key: label.value for key, label in stored.items()} == caller.acknowledged
    assert psutil.pid_exists(process.pid) is False


def test_a_taken_port_is_said_before_any_work(project, running):
    """The process that holds the port is named, and what to type instead."""
    write_template("project_template", project.parent / "other")
    with running("serve", "--no-monitors", "--port", "0", folder=project) as (_, url, _out):
        port = url.rsplit(":", 1)[1]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mlguard.cli", "up", "--port", port],
            cwd=project.parent / "other",
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    assert port in done.stderr
    assert "--port" in done.stderr
    assert not (project.parent / "other" / ".mlguard" / "registry.db").exists()
