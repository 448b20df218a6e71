"""Keys of callers, and thresholds per group, over real HTTP."""

import asyncio
import json

import httpx
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlguard.models.predictor import Predictions, load_predictor
from mlguard.models.thresholds import GroupThresholds, by_group
from mlguard.serving.access import AppKeys, UnauthorisedError
from mlguard.serving.embedded import LocalIds, served
from mlguard.serving.engine import AppEngine, Route, VersionSpec
from mlguard.serving.logged_rows import FACTS
from mlguard.serving.metrics import Metrics
from mlguard.serving.query_ids import QueryIds
from mlguard.stats.thresholds import decide

TABLE = {"default": 0.5, "sex=F": 0.3}
KEY = {"Authorization": "Bearer s3cret-portal"}
NAMED = {
    "app": {"keys": ["portal", "night-batch"], "groups_affect_decisions": True, "slo_ms": 5000},
    "data": {"test": "test.csv", "sensitive": ["sex", "race"]},
    "model": {"thresholds": TABLE},
}


@pytest.fixture(scope="module")
def settings(settings_of):
    return settings_of(**NAMED)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, bundle_of, doubles, settings):
    """A model of one number whose second class becomes likelier as it grows."""
    rows = np.linspace(-3, 3, 400).reshape(-1, 1)
    target = (rows[:, 0] + np.random.default_rng(5).normal(0, 1, 400) > 0).astype(int)
    model = LogisticRegression().fit(rows, target)
    path = tmp_path_factory.mktemp("groups") / "model.skops"
    return bundle_of(model, path, doubles(1), settings)


@pytest.fixture(scope="module")
def between(bundle):
    """A row whose score lies between the two thresholds."""
    predictor = load_predictor(bundle.manifest, bundle.path)
    rows = np.linspace(-3, 3, 200).reshape(-1, 1)
    scores = predictor.predict(rows).scores
    return rows[np.argmin(np.abs(scores - 0.4))].tolist()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The value of one key in the environment, that of the other in a file."""
    file = tmp_path_factory.mktemp("keys") / "night"
    file.write_text("s3cret-night\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLGUARD_KEY_PORTAL", "s3cret-portal")
        patch.setenv("MLGUARD_KEY_NIGHT_BATCH_FILE", str(file))
        yield


@pytest.fixture(scope="module")
def client(settings, bundle, keys):
    with (
        served(settings, bundle.json, bundle.path) as url,
        httpx.Client(base_url=url, timeout=30) as opened,
    ):
        yield opened


def ask(client, row, groups=None, headers=KEY, **more):
    body = {"input": row, **more} | ({} if groups is None else {"groups": groups})
    return client.post("/app/predict", json=body, headers=headers)


@pytest.mark.parametrize(
    ("groups", "output"),
    [
        ({"sex": "F"}, 1),
        ({"sex": "M"}, 0),
        ({"sex": "X"}, 0),
        ({"sex": None}, 0),
        ({}, 0),
        (None, 0),
        ({"sex": "F", "race": "B"}, 1),
        ({"race": "F"}, 0),
    ],
)
def test_a_group_has_its_own_threshold(client, between, groups, output):
    """Only the attribute of the table decides; no group, an unknown one: the default."""
    reply = ask(client, between, groups)
    assert reply.status_code == 200
    assert reply.json()["output"] == output
    assert reply.json()["default"] is False


def test_a_batch_is_of_one_group(client, between):
    """The group of a request is that of each of its rows; far scores stay what they are."""
    body = {"input_batch": [between, [-3.0], [3.0]], "groups": {"sex": "F"}}
    reply = client.post("/app/predict", json=body, headers=KEY)
    assert [one["output"] for one in reply.json()["batch_predictions"]] == [1, 0, 1]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic s3cret-portal"},
        {"Authorization": b"Bearer s\xe9cret"},
        {"Authorization": "s3cret-portal"},
    ],
)
@pytest.mark.parametrize("path", ["/app/predict", "/app/predict/", "/app/update"])
def test_who_shows_no_key_gets_nothing(client, between, path, headers):
    """401 in JSON, whatever the body; the reply says how to show a key."""
    reply = client.post(path, json={"input": between, "query_id": 1, "label": 1}, headers=headers)
    assert reply.status_code == 401
    assert set(reply.json()) == {"error", "cause"}
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "s3cret" not in reply.text


def test_a_key_may_be_in_a_file(client, between):
    """The second key is in the file that the environment names."""
    reply = ask(client, between, {"sex": "F"}, {"authorization": "bearer s3cret-night"})
    assert reply.json()["output"] == 1


def test_operators_need_no_key(client):
    """Keys are for predictions and labels."""
    assert client.get("/healthz").status_code == 200


def test_a_label_with_a_key_is_taken(client, between):
    """A label is accepted from a caller that shows a key."""
    query_id = ask(client, between).json()["query_id"]
    body = {"query_id": query_id, "label": 1}
    assert client.post("/app/update", json=body, headers=KEY).json() == {"received": True}


def test_a_key_without_a_value_lets_nobody_in():
    """An empty value is no key, and neither is an empty header."""
    for environment in ({}, {"MLGUARD_KEY_PORTAL": " "}, {"MLGUARD_KEY_PORTAL_FILE": "/none"}):
        keys = AppKeys(["portal"], environment)
        assert keys.absent == ("portal",)
        for header in ("", "Bearer", "Bearer ", "Bearer x"):
            with pytest.raises(UnauthorisedError):
                keys.shown(header.encode())
    assert AppKeys([], {}).shown(b"") is None


def test_where_nothing_is_declared_nothing_changes(settings_of, bundle, between):
    """Without keys groups decide nothing and a key is ignored: byte for byte the same answer."""
    plain = settings_of(app={"slo_ms": 5000})
    manifest = {**bundle.json, "thresholds": {"default": 0.5}}
    asked = [(None, {}), ({"sex": "F"}, {}), ({"sex": "F"}, KEY)]
    with (
        served(plain, manifest, bundle.path) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        for number, (groups, headers) in enumerate(asked, start=1):
            reply = ask(client, between, groups, headers)
            assert reply.content == b'{"query_id":%d,"output":0,"default":false}' % number


@pytest.mark.parametrize("app", [{}, {"keys": ["portal"]}])
def test_switching_it_off_holds_for_versions_that_have_thresholds(
    settings_of, bundle, between, keys, app
):
    """A version deployed with thresholds per group answers by the default once that is off."""
    with (
        served(settings_of(app={"slo_ms": 5000, **app}), bundle.json, bundle.path) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        assert ask(client, between, {"sex": "F"}).json()["output"] == 0


class Kept:
    """Keeps what an engine puts aside for the log."""

    def __init__(self):
        self.facts = []

    def put(self, _target, columns):
        rows = zip(*(columns[name] for name in FACTS), strict=True)
        self.facts += [dict(zip(FACTS, row, strict=True)) for row in rows]


def test_the_log_tells_group_score_and_answer(settings, bundle, between, keys):
    """What was answered can be explained from the log and the version's manifest."""
    kept = Kept()

    async def one():
        ids = QueryIds(LocalIds().reserve)
        engine = AppEngine(settings, ids=ids, metrics=Metrics(), recorder=kept)
        await engine.load(VersionSpec(1, "v1", bundle.json, str(bundle.path)))
        ids.refill((1, 1))
        engine.switch(Route(generation=1, active=1))
        body = json.dumps({"input": between, "groups": {"sex": "F", "member": True}})
        await engine.predict(body.encode(), caller="portal")
        await engine.predict(body.encode())
        await engine.close()

    asyncio.run(one())
    first, second = kept.facts
    assert (first["output"], second["output"]) == (1, 0)
    assert first["groups"] == {"sex": "F", "member": "True"}
    assert first["score"] == second["score"]
    assert TABLE["sex=F"] <= first["score"] < TABLE["default"]


def test_the_source_of_a_label_is_the_name_of_its_key(project, constant, fronted, keys, eventually):
    """Labels are told apart by who sent them."""
    from mlguard.data.labels import LabelStore, default_url

    project.app("app")
    file = project.root / "serving" / "app" / "app.toml"
    file.write_text(file.read_text().replace("[data]", 'keys = ["portal"]\n[data]'))
    with fronted(project) as (_, url), httpx.Client(base_url=url, timeout=30) as client:
        project.deploy("app", constant(1))
        eventually(lambda: not ask(client, [0.0, 0.0]).json()["default"], what="the switch")
        query_id = ask(client, [0.0, 0.0]).json()["query_id"]
        body = {"query_id": query_id, "label": 1}
        assert client.post("/app/update", json=body, headers=KEY).status_code == 200
        assert client.post("/app/update", json=body).status_code == 401
    store = LabelStore(default_url(project.settings.log_dir, "app"))
    assert store.get([query_id])[query_id].source == "portal"
    store.close()


@pytest.mark.parametrize("classes", [(0, 1), ("no", "yes"), (False, True)])
def test_many_rows_are_decided_as_one_is(classes):
    """The gate's way and the server's give the same answers, at the boundary too."""
    rng = np.random.default_rng(1)
    scores = np.append(rng.random(300), [0.3, 0.5, np.nextafter(0.3, 0)])
    groups = rng.choice(np.array(["F", "M", "X", None], dtype=object), len(scores))
    labels = np.array(classes)[(scores >= 0.5).astype(int)]
    answers = Predictions(labels, scores, np.ones(len(scores), bool))
    many = by_group(answers, classes, TABLE, {"sex": groups})
    table = GroupThresholds.of(TABLE)
    one_by_one = []
    for score, group in zip(scores, groups, strict=True):
        threshold = table.of_group({} if group is None else {"sex": group})
        one_by_one.append(classes[int(score >= (0.5 if threshold is None else threshold))])
    assert many.outputs() == one_by_one
    assert many.labels.dtype == labels.dtype
    np.testing.assert_array_equal(decide(scores, TABLE, {"sex": groups}), labels_of(many, classes))
    assert by_group(answers, classes, {"default": 0.5}, {"sex": groups}) is answers


def labels_of(answers, classes):
    return np.array([one == classes[1] for one in answers.outputs()])
