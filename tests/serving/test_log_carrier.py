"""The process that carries the log, beside a real server that is stopped, or killed."""

import contextlib
import signal

import httpx
import psutil
import pytest

from mlguard.data.log_store import LogStore
from mlguard.data.prediction_log import PredictionLog


@pytest.fixture
def stored(new_project, tmp_path):
    """A project whose log is carried to a folder by its URL."""
    store = f"file://{tmp_path / 'store'}"
    made = new_project(tmp_path / "project", f'[log_store]\nurl = "{store}"\nsegment = "5s"\n')
    made.store = store
    yield made
    made.close()


def elsewhere(project, folder):
    """Return the query ids that another machine reads from the store."""
    log = PredictionLog(folder)
    found = LogStore(log, project.store).sync(look=True)
    assert found.error == ""
    return set(log.read("app")["query_id"].to_pylist())


def ask(url, eventually, n=50):
    """Ask for some rows once the version answers; returns their query ids."""

    def answered(rows):
        body = {"input_batch": [[0.5, 0.5]] * rows}
        found = httpx.post(f"{url}/app/predict", json=body, timeout=30).json()["batch_predictions"]
        return not any(one["default"] for one in found) and {one["query_id"] for one in found}

    eventually(lambda: answered(2), within_s=60, what="the version")
    return eventually(lambda: answered(n), what="an answer")


def test_an_orderly_end_leaves_everything_in_the_store(
    stored, constant, serving, eventually, tmp_path
):
    """Segments go while the server answers, and the last one when it has finished."""
    stored.app("app")
    with serving(stored) as (_, url):
        stored.deploy("app", constant(1), name="v1")
        asked = ask(url, eventually)
        assert "mlguard_log_waiting_bytes" in httpx.get(f"{url}/metrics").text
    assert elsewhere(stored, tmp_path / "elsewhere") >= asked


@pytest.mark.soak
def test_what_a_kill_leaves_is_carried_by_the_next_start(
    stored, constant, serving, eventually, tmp_path
):
    """kill -9 of a server and all that is its: what was flushed is carried by the next one."""
    stored.app("app")
    with serving(stored) as (process, url):
        stored.deploy("app", constant(1), name="v1")
        asked = ask(url, eventually)
        local = PredictionLog(stored.settings.log_dir)
        eventually(lambda: set(local.read("app")["query_id"].to_pylist()) >= asked, what="a flush")
        family = [*psutil.Process(process.pid).children(recursive=True), process]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        process.wait(30)
    with serving(stored):
        eventually(
            lambda: elsewhere(stored, tmp_path / "elsewhere") >= asked,
            within_s=60,
            what="the rest in the store",
        )
