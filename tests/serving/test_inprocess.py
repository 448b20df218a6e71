"""Models without code beside the event loop: the same answers, and off it where they are slow."""

import asyncio
import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlguard.errors import ModelRunError
from mlguard.models.formats import load_model
from mlguard.serving.inprocess import InProcessReplica
from mlguard.serving.replica import ModelSpec


@pytest.fixture(scope="module")
def spec(iris, compiled, tmp_path_factory):
    estimator = load_model(iris.path, trusted_types=(), allow_pickle=False)
    bundle = compiled(estimator, iris, tmp_path_factory.mktemp("linear") / "iris.linear")
    return ModelSpec(bundle.json, str(bundle.path), 2048, 30.0), estimator


def test_it_answers_what_the_original_answers(spec):
    """Labels of scikit-learn's own predict; the batch is back before the call returns."""
    order, estimator = spec
    assert isinstance(estimator, LogisticRegression)
    rows = np.random.default_rng(3).uniform([4, 2, 1, 0.1], [8, 4.5, 7, 2.5], (500, 4))

    async def ask():
        replica = InProcessReplica(order)
        assert not replica.ready
        await replica.start()
        got = []
        assert replica.run(rows.tolist(), got.append)
        await replica.close()
        assert not replica.ready
        return got

    (answer,) = asyncio.run(ask())
    assert answer.labels == estimator.predict(rows).tolist()
    assert answer.errors == {}
    assert answer.took_s > 0


def test_a_slow_one_moves_to_a_thread_and_says_so(spec, monkeypatch, caplog):
    """Once most batches take too long; then batches come back later, one at a time."""
    order, estimator = spec
    monkeypatch.setattr("mlguard.serving.inprocess._LONGEST_S", -1.0)
    monkeypatch.setattr("mlguard.serving.inprocess._TOO_MANY", 3)
    rows = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
    freed = []

    async def ask():
        loop = asyncio.get_running_loop()
        replica = InProcessReplica(order, name="v1", on_free=lambda: freed.append(True))
        await replica.start()
        for _ in range(3):
            replica.run(rows, lambda _: None)
        assert not replica.inline
        answered = loop.create_future()
        assert replica.run(rows, answered.set_result)
        assert not answered.done()
        assert not replica.free
        assert not replica.run(rows, lambda _: None)
        answer = await answered
        assert replica.free
        await replica.close()
        return answer

    with caplog.at_level(logging.INFO, logger="mlguard.serving"):
        answer = asyncio.run(ask())
    assert answer.labels == estimator.predict(rows).tolist()
    assert freed == [True]
    said = [one.getMessage() for one in caplog.records]
    assert len([one for one in said if "version v1 runs in a thread" in one]) == 1


def test_code_is_not_let_in(iris):
    """A version that is somebody's code does not run here, whatever asks for it."""

    async def load():
        await InProcessReplica(ModelSpec(iris.json, str(iris.path), 2048, 30.0)).start()

    with pytest.raises(ModelRunError, match="a process of its own only"):
        asyncio.run(load())
