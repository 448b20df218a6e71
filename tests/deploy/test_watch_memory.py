"""What a watcher keeps in mind, and what it writes down with it."""

import pytest

from mlguard.deploy.watch_memory import Memory
from mlguard.errors import RegistryError
from mlguard.results import MonitorResult, Verdict, Window

KEY = ("loan", 1, 1, "prediction_drift")


def result(start, name="prediction_drift.ks"):
    window = Window(start=start, end=start + 1, n_rows=10, n_labels=0, generation=1)
    return MonitorResult(
        id=name, verdict=Verdict.PASSED, summary="fine", window=window, version="v1", n=10
    )


@pytest.fixture
def memory(world):
    world.deploy("v1", (1.0, 1.0))
    return Memory(world.registry)


def stored(memory):
    return [one for _, one in reversed(memory.registry.monitor_results("loan"))]


def test_results_and_the_place_after_them_are_one_transaction(memory, monkeypatch):
    """Where the state cannot be written, neither are the results, and nothing is remembered."""
    memory.record_judged("loan", [result(0)], KEY, {"at": 1})

    def fails(*_):
        raise RegistryError("no room")

    with monkeypatch.context() as broken:
        broken.setattr(memory.registry, "_put_state", fails)
        with pytest.raises(RegistryError):
            memory.record_judged("loan", [result(1)], KEY, {"at": 2})
    assert stored(memory) == [result(0)]
    assert memory.state(KEY) == {"at": 1}
    assert memory.record_judged("loan", [result(1)], KEY, {"at": 2}) == [result(1)]
    assert stored(memory) == [result(0), result(1)]
    assert Memory(memory.registry).state(KEY) == memory.state(KEY) == {"at": 2}


def test_what_was_recorded_is_not_recorded_again(memory):
    """Not by a pass that repeats it, nor where a monitor says a thing twice; order is kept."""
    first = [result(0), result(0, "prediction_drift.share")]
    assert memory.record_judged("loan", first, KEY, {}) == first
    again = Memory(memory.registry)
    asked = [*first, result(2), result(1), result(2)]
    assert again.record_judged("loan", asked, KEY, {}) == [result(2), result(1)]
    assert not again.record("loan", result(1))
    assert stored(memory) == [*first, result(2), result(1)]
