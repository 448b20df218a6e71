"""The real thing: a supervisor process, its front ends, their models, real kills."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import httpx
import psutil
import pytest

from mlguard.data.labels import LabelStore, default_url
from mlguard.data.prediction_log import PredictionLog
from mlguard.errors import ConflictError
from mlguard.serving.supervisor import serve

BODY = b'{"input": [0.5, 0.5]}'


class Traffic(threading.Thread):
    """Asks without a pause until told to stop; keeps what came back."""

    def __init__(self, url: str, *, labels: bool = False) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.labels = labels
        self.statuses: Counter[str] = Counter()
        self.versions: list[tuple[str, int, int]] = []
        self.labelled: list[int] = []
        self.slowest_s = 0.0
        self._stopping = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self._stopping.is_set():
                started = time.monotonic()
                try:
                    reply = client.post("/app/predict", content=BODY)
                    document = reply.json()
                    kind = "default" if document.get("default") else str(reply.status_code)
                    self.statuses[kind] += 1
                    if kind == "200":
                        headers = reply.headers
                        self.versions.append(
                            (
                                headers["X-MLGuard-Version"],
                                int(headers["X-MLGuard-Generation"]),
                                document["output"],
                            )
                        )
                        if self.labels:
                            query_id = document["query_id"]
                            label = {"query_id": query_id, "label": 1}
                            if client.post("/app/update", json=label).status_code == 200:
                                self.labelled.append(query_id)
                except httpx.HTTPError as error:
                    self.statuses[type(error).__name__] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - started)

    def end(self) -> None:
        self._stopping.set()
        self.join(30)


def fronts(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [
        one
        for one in psutil.Process(process.pid).children()
        if "mlguard.server_app" in " ".join(one.cmdline())
    ]


def test_switches_under_traffic_lose_nothing(project, constant, serving, eventually):
    """Deploys and rollbacks under continuous traffic: every answer is a 200 of the model, and
    version, generation and output always belong together.  Ctrl-C ends it without a word."""
    project.app("app")
    first, second = constant(0), constant(1)
    project.deploy("app", first, name="v0")
    # A group of its own and a pipe for stderr: Ctrl-C goes to the whole group, and is quiet.
    options = {"stderr": subprocess.PIPE, "process_group": 0}
    with serving(project, **options) as (process, url):
        assert httpx.post(f"{url}/app/predict", content=BODY).json()["output"] == 0
        callers = [Traffic(url) for _ in range(4)]
        for caller in callers:
            caller.start()

        def heard(generation):
            def some():
                return any(one[1] == generation for caller in callers for one in caller.versions[:])

            eventually(some, within_s=30, what=f"an answer of generation {generation}")

        generations = {1: 0, 2: 1, 3: 0, 4: 1}
        heard(1)
        project.deploy("app", second, name="v1")
        heard(2)
        project.registry.rollback("app", automatic=False, reason="test")
        heard(3)
        project.deploy("app", second, name="v1")
        heard(4)
        for caller in callers:
            caller.end()
        statuses = sum((caller.statuses for caller in callers), Counter())
        assert set(statuses) == {"200"}, statuses
        seen = {one for caller in callers for one in caller.versions}
        assert {one[1] for one in seen} == {1, 2, 3, 4}
        for version, generation, output in seen:
            assert output == generations[generation]
            assert version == f"v{output}"
        for caller in callers:
            order = [generation for _, generation, _ in caller.versions]
            assert order == sorted(order)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0
        said = process.stderr.read().splitlines()
        process.stderr.close()
        # A pickled model is warned about while it loads; that was not the Ctrl-C.
        assert [line for line in said if "Pickle" not in line and "load_model(" not in line] == []
    # Everything that was answered is in the log, under the version that answered it.
    log = PredictionLog(project.settings.log_dir)
    rows = log.read("app").to_pylist()
    assert len(rows) == statuses["200"] + 1
    assert {(row["generation"], row["output"]) for row in rows} == {
        (generation, str(output)) for generation, output in generations.items()
    }
    assert all(row["x0"] == 0.5 and not row["default"] and row["valid"] for row in rows)
    assert project.registry.live_servers() == []


def test_kill_9_of_a_front_end(project, constant, serving, eventually):
    """It is started again on the live version; who connects meanwhile waits and is answered;
    no acknowledged label is lost, and labels of lost rows are still credited."""
    project.app("app")
    project.deploy("app", constant(1))
    with serving(project) as (process, url):
        caller = Traffic(url, labels=True)
        caller.start()
        eventually(lambda: len(caller.labelled) > 20)
        before = httpx.post(f"{url}/app/predict", content=BODY).json()["query_id"]
        (front,) = fronts(process)
        replicas = front.children()
        os.kill(front.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        answered = httpx.post(f"{url}/app/predict", content=BODY, timeout=30)
        assert answered.json()["output"] == 1
        assert time.monotonic() - killed_at < 20
        eventually(
            lambda: not any(one.is_running() and one.status() != "zombie" for one in replicas)
        )
        known = len(caller.labelled)
        eventually(lambda: len(caller.labelled) > known + 20)
        caller.end()
        # One request may have been in its hands; nothing else may have failed.
        lost = sum(n for kind, n in caller.statuses.items() if kind not in ("200", "default"))
        assert lost <= 1, caller.statuses
        assert caller.statuses["default"] == 0
        reply = httpx.post(f"{url}/app/update", json={"query_id": before, "label": 1})
        assert reply.status_code == 200
        reply = httpx.post(f"{url}/app/update", json={"query_id": 2**40, "label": 1})
        assert reply.status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    labels = LabelStore(default_url(project.settings.log_dir, "app"))
    stored = labels.get(caller.labelled)
    labels.close()
    assert len(stored) == len(caller.labelled) > 40


def test_sigterm_under_load_loses_nothing(project, constant, serving, eventually):
    """Callers who were heard are answered; the others find nobody to connect to."""
    project.app("app")
    project.deploy("app", constant(1))
    with serving(project) as (process, url):
        callers = [Traffic(url) for _ in range(8)]
        for caller in callers:
            caller.start()
        # All of them are connected by then; who is just connecting may find the door shut.
        eventually(lambda: all(caller.statuses["200"] > 5 for caller in callers))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for caller in callers:
            caller.end()
    statuses = sum((caller.statuses for caller in callers), Counter())
    assert set(statuses) == {"200", "ConnectError"}, statuses
    log = PredictionLog(project.settings.log_dir)
    assert log.read("app").num_rows == statuses["200"]


def test_kill_9_of_the_supervisor_ends_everything(project, constant, serving, eventually):
    """No orphan holds the port; the front end ends in order, its models with it."""
    project.app("app")
    project.deploy("app", constant(1))
    with serving(project) as (process, url):
        everybody = psutil.Process(process.pid).children(recursive=True)
        assert len(everybody) == 2
        process.kill()
        eventually(
            lambda: all(
                not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in everybody
            )
        )
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")


def test_the_watcher_is_kept_running(project, serving, eventually, tmp_path):
    """The handed-in command runs beside the front ends, is started again, and ends with them."""
    marks = tmp_path / "marks"
    script = (
        f"import os, time; open({str(marks)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
    )
    with serving(project, sys.executable, "-c", script) as (process, url):
        assert httpx.get(f"{url}/healthz").status_code == 200
        (first,) = eventually(lambda: marks.is_file() and marks.read_text().split())
        os.kill(int(first), signal.SIGKILL)
        second = eventually(lambda: marks.read_text().split()[1:])[0]
        watcher = psutil.Process(int(second))
        # Who watches gives way to who answers.
        assert watcher.nice() > psutil.Process(process.pid).nice()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert not watcher.is_running()


@pytest.mark.slow
def test_several_front_ends_share_the_socket(project, constant, serving, eventually):
    """Both answer, both load a new version before it is promoted, figures are summed."""
    project.root.joinpath("mlguard.toml").write_text("[server]\nport = 0\nprocesses = 2\n")
    project.app("app")
    project.deploy("app", constant(0))
    with serving(project) as (process, url):
        eventually(lambda: len(project.registry.live_servers()) == 2)
        project.deploy("app", constant(1))
        eventually(lambda: all(one.observed["app"] == 2 for one in project.registry.live_servers()))
        for _ in range(40):  # a connection each, so that both are asked
            assert httpx.post(f"{url}/app/predict", content=BODY).json()["output"] == 1
        name = 'mlguard_requests_total{app="app",status="200"}'

        def counted():
            lines = httpx.get(f"{url}/metrics").text.splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

        # Each process tells the other its figures now and then.
        eventually(lambda: counted() == 40)
        assert len(fronts(process)) == 2


def test_a_taken_port_is_explained(project):
    """The error names the process that holds the port, and what to type."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ConflictError) as caught:
            serve(project.settings, port=port)
    assert f"port {port} of 127.0.0.1 is taken by process {os.getpid()}" in caught.value.message
    assert f"--port {port + 1}" in caught.value.hint
    assert caught.value.exit_code == 4
