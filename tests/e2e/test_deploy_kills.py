"""kill -9 of whole deployments, and two of them at once: the real command, real processes.

Faults 2 to 4 and 8: nothing is torn, the next deployment is never blocked, generations have no
gap.  The registry alone is killed at every point by ``tests/registry/test_kills.py``.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mlguard.cli.starting import write_template
from mlguard.project import Project
from mlguard.registry import State

KILLS = 20
#: A whole deployment takes some seconds; each kill comes at another moment of it.
LONGEST_S = 14.0


def command(*words):
    return [sys.executable, "-P", "-m", "mlguard.cli", *words, "--json"]


def typed(folder, *words):
    done = subprocess.run(
        command(*words), cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, json.loads(done.stdout)


def candidates(folder, number):
    """Make models that all pass the gate and are all different."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    from mlguard.models.formats import save_model

    frame = pd.read_csv(folder / "serving/iris/data/train.csv")
    made = []
    for one in range(number):
        path = folder / f"candidate-{one}.skops"
        model = LogisticRegression(C=1.0 + one / 10, max_iter=2000)
        save_model(model.fit(frame.drop(columns="species"), frame["species"]), path)
        made.append(path)
    return made


def whole(folder) -> int:
    """Assert that a project's registry is whole; return its generation."""
    registry = Project(folder).registry
    try:
        state = registry.app("iris")
        serving = [
            one.id for one in registry.versions("iris") if one.state in (State.BAKING, State.LIVE)
        ]
        assert serving == [state.active.id]
        moves = [one.generation for one in registry.events("iris") if one.moved]
        assert moves == list(range(state.generation, 0, -1))
        assert registry.verify() == []
        return state.generation
    finally:
        registry.close()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A project whose first version serves."""
    folder = tmp_path_factory.mktemp("killed") / "project"
    write_template("project_template", folder)
    assert Project(folder).deploy("iris").exit_code == 0
    return folder


@pytest.mark.soak
@pytest.mark.marathon
def test_deployments_that_are_killed_leave_nothing_torn(first, tmp_path):
    """Twenty kills at random moments; each time the same command, typed again, goes through."""
    folder = tmp_path / "project"
    shutil.copytree(first, folder)
    moment = random.Random(4)
    generation = whole(folder)
    killed = 0
    for number, model in enumerate(candidates(folder, KILLS)):
        words = ("deploy", "iris", "--model", model.name, "--supersede")
        process = subprocess.Popen(
            command(*words),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moment.uniform(0.3, LONGEST_S))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        after = whole(folder)
        assert after in (generation, generation + 1), number
        code, document = typed(folder, *words)
        assert code == 0, json.dumps(document)
        generation = whole(folder)
        assert generation == after + (1 if document["changed"] else 0)
    assert killed >= KILLS // 2


@pytest.mark.soak
@pytest.mark.marathon
def test_whole_deployments_started_together(first, tmp_path):
    """Three times two commands at once: one goes through, the other exits 4 and changes nothing."""
    folder = tmp_path / "project"
    shutil.copytree(first, folder)
    models = candidates(folder, 6)
    for turn in range(3):
        before = whole(folder)
        pair = models[2 * turn : 2 * turn + 2]
        running = [
            subprocess.Popen(
                command("deploy", "iris", "--model", model.name),
                cwd=folder,
                stdout=subprocess.PIPE,
                text=True,
            )
            for model in pair
        ]
        ended = []
        for process in running:
            document = json.loads(process.communicate(timeout=300)[0])
            assert document["exit_code"] == process.returncode
            ended.append(document)
        said = [(one["exit_code"], one["lines"], one["error"]) for one in ended]
        assert sorted(one["exit_code"] for one in ended) == [0, 4], said
        assert whole(folder) == before + 1
        project = Project(folder)
        project.registry.confirm("iris", served_s=1)
        project.registry.close()
