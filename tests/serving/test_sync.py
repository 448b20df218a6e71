"""A front end and its registry: what it follows, and what it survives."""

import sqlite3
import subprocess
import sys

import httpx

from mlguard.registry.store import Registry

BODY = b'{"input": [0.5, 0.5]}'


def answer(url: str, app: str = "app") -> dict:
    return httpx.post(f"{url}/{app}/predict", content=BODY, timeout=30).json()


def test_without_its_registry_the_server_goes_on(
    project, constant, fronted, eventually, monkeypatch
):
    """A database that fails changes no answer; /readyz stays ready and says degraded."""
    from mlguard.errors import RegistryError

    project.app("app")
    project.deploy("app", constant(1))
    with fronted(project) as (_front, url):
        assert answer(url)["output"] == 1

        def gone(self, name):
            raise RegistryError("the database is gone")

        with monkeypatch.context() as broken:
            broken.setattr(Registry, "app", gone)
            body = eventually(
                lambda: (found := httpx.get(f"{url}/readyz").json()).get("degraded") and found
            )
            assert body["ready"] is True
            assert "registry cannot be read since" in body["degraded"][0]
            assert answer(url)["output"] == 1
            assert "mlguard_registry_up 0.0" in httpx.get(f"{url}/metrics").text
            assert "cannot be read" in httpx.get(f"{url}/").text
        eventually(lambda: "degraded" not in httpx.get(f"{url}/readyz").json())


def test_what_stands_by_is_what_is_loaded_and_answers(project, constant, fronted):
    """Asked past the callers' queue; of what is not here, nothing is claimed."""
    project.app("app")
    project.deploy("app", constant(0), name="old")
    project.deploy("app", constant(1), name="new")
    ids = {name: project.registry.version("app", name).id for name in ("old", "new")}
    with fronted(project) as (front, url):
        assert front.sync.stands_by("app", ids["old"])
        assert front.sync.stands_by("app", ids["new"])
        assert not front.sync.stands_by("app", max(ids.values()) + 1)
        assert not front.sync.stands_by("nobody", ids["old"])
        assert answer(url)["output"] == 1
        assert front.sync.caught_up("app", 2, 0.0) == 2
        assert front.sync.caught_up("app", 3, 0.0) == 2
        assert front.sync.caught_up("nobody", 1, 0.0) is None


def test_a_locked_database_holds_up_no_answer(project, constant, fronted):
    """While another writer holds the database, predictions are answered as fast as ever."""
    project.app("app")
    project.deploy("app", constant(1))
    with fronted(project) as (_, url):
        file = project.settings.registry_url.removeprefix("sqlite:///")
        blocker = sqlite3.connect(file, isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        answers = [answer(url) for _ in range(50)]
        blocker.execute("ROLLBACK")
        blocker.close()
        assert [one["output"] for one in answers] == [1] * 50


def test_an_older_registry_is_not_believed(project, constant, fronted, eventually):
    """A registry put back from a backup knows less than the server: it goes on, degraded."""
    project.app("app")
    project.deploy("app", constant(0))
    file = project.settings.registry_url.removeprefix("sqlite:///")
    with sqlite3.connect(file) as source, sqlite3.connect(f"{file}.old") as backup:
        source.backup(backup)
    source.close()
    backup.close()
    with fronted(project) as (front, url):
        project.deploy("app", constant(1))
        eventually(lambda: answer(url)["output"] == 1)
        with sqlite3.connect(f"{file}.old") as old, sqlite3.connect(file) as current:
            old.backup(current)
        old.close()
        current.close()
        eventually(lambda: front.sync.degraded)
        assert answer(url)["output"] == 1
        assert "generation 1" in front.sync.degraded[1]


def test_block_and_unblock(project, constant, fronted, eventually):
    """Blocked: the default output with its reason, at the new generation; then the model again."""
    project.app("app", default_output="[0]")
    project.deploy("app", constant(1))
    with fronted(project) as (_, url):
        project.registry.block("app", "test")
        blocked = eventually(lambda: (found := answer(url))["default"] and found)
        assert blocked["output"] == [0]
        assert "until it is unblocked" in blocked["default_explanation"]
        reply = httpx.post(f"{url}/app/predict", content=BODY)
        assert reply.headers["X-MLGuard-Generation"] == "2"
        assert httpx.get(f"{url}/readyz").status_code == 200
        project.registry.unblock("app", "test")
        eventually(lambda: answer(url)["output"] == 1)


def test_the_previous_version_stays_warm_and_can_be_named(project, constant, fronted, eventually):
    """After a switch the rollback target answers requests for it by name; a stranger is a 400."""
    project.app("app")
    project.deploy("app", constant(0), name="old")
    project.deploy("app", constant(1), name="new")
    with fronted(project) as (front, url):
        eventually(lambda: len(front.engines["app"].route.warm) == 2)

        def ask(version):
            body = {"input": [0.5, 0.5], "version": version}
            return httpx.post(f"{url}/app/predict", json=body)

        assert (ask("new").json()["output"], ask("old").json()["output"]) == (1, 0)
        assert ask("old").headers["X-MLGuard-Version"] == "old"
        assert ask("other").status_code == 400


def test_a_version_that_cannot_be_loaded_leaves_the_old_one(project, constant, fronted, eventually):
    """Bytes that are gone: the old version answers, the failure is reported with its reason."""
    project.app("app")
    project.deploy("app", constant(0), name="good")
    project.deploy("app", constant(1), name="bad")
    project.registry.rollback("app", automatic=False, reason="test")
    bad = project.registry.version("app", "bad")
    path = project.registry.artifacts.get(bad.manifest["model_sha256"])
    path.chmod(0o644)
    path.write_bytes(b"rotten")
    with fronted(project) as (front, url):
        assert answer(url)["output"] == 0
        # Promoted behind the server's back.
        file = project.settings.registry_url.removeprefix("sqlite:///")
        with sqlite3.connect(file) as database:
            database.execute("UPDATE versions SET state='STANDBY' WHERE name='good'")
            database.execute("UPDATE versions SET state='LIVE' WHERE name='bad'")
            database.execute(
                "UPDATE apps SET active=?, generation=generation+1 WHERE app='app'", (bad.id,)
            )
        database.close()
        eventually(lambda: front.sync.lagging)
        assert "version bad" in front.sync.lagging["app"]
        assert answer(url)["output"] == 0
        server = eventually(lambda: [one for one in project.registry.live_servers() if one.failed])[
            0
        ]
        assert bad.id in server.failed
        assert httpx.get(f"{url}/readyz").json()["apps"]["app"]["lagging"]


def test_new_apps_and_changed_settings_are_picked_up(project, constant, fronted, eventually):
    """A new app.toml is served without a restart; a broken one leaves the old settings."""
    project.app("app", default_output="1")
    with fronted(project) as (front, url):
        assert answer(url)["output"] == 1
        project.app("more", default_output="2")
        eventually(lambda: "more" in front.engines)
        assert answer(url, "more")["output"] == 2
        project.app("app", default_output="33")
        eventually(lambda: answer(url)["output"] == 33)
        file = project.root / "serving" / "app" / "app.toml"
        file.write_text(file.read_text() + "[app2]\nnonsense = 1\n")
        body = eventually(
            lambda: (found := httpx.get(f"{url}/readyz").json()).get("degraded") and found
        )
        assert "settings of app not in force" in body["degraded"][0]
        assert answer(url)["output"] == 33


def test_a_server_reports_what_it_serves(project, constant, fronted, eventually):
    """Its row names generation and loaded versions while it lives, and is gone afterwards."""
    project.app("app")
    version = project.deploy("app", constant(1))
    with fronted(project) as (_, url):
        (server,) = project.registry.live_servers()
        assert server.observed == {"app": 1}
        assert server.loaded == (version.id,)
        assert server.url == url
    assert project.registry.live_servers() == []


def test_an_id_names_its_version(project, constant, fronted, eventually):
    """The registry knows from a query id alone which version and generation answered."""
    project.app("app")
    with fronted(project) as (_, url):
        nobody = answer(url)["query_id"]
        version = project.deploy("app", constant(1))
        live = eventually(lambda: (found := answer(url))["output"] == 1 and found)["query_id"]
        assert project.registry.id_block(nobody).version_id is None
        block = project.registry.id_block(live)
        assert (block.app, block.version_id, block.generation) == ("app", version.id, 1)


def test_a_front_end_stays_light(project, constant):
    """Answering with a model loaded needs neither pandas nor scikit-learn nor any report
    library in the front end; they live in the replicas or nowhere."""
    project.app("app")
    project.deploy("app", constant(1))
    script = """
import asyncio, sys
from pathlib import Path
import httpx
from mlguard.config import load_project
from mlguard.server_app import app_of
from mlguard.serving.front import Front

async def main():
    front = Front(load_project(Path(sys.argv[1])))
    app = app_of(front)
    async with front.lifespan(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            reply = await client.post("/app/predict", content=b'{"input": [0.5, 0.5]}')
            assert reply.json()["output"] == 1, reply.text
            reply = await client.post(
                "/app/update", json={"query_id": reply.json()["query_id"], "label": 1}
            )
            assert reply.status_code == 200, reply.text
            front.recorder.flush()
            for path in ("/", "/docs", "/metrics", "/api/apps", "/readyz"):
                assert (await client.get(path)).status_code == 200, path

asyncio.run(main())
heavy = "great_expectations evidently matplotlib pytest pandas sklearn scipy skops joblib".split()
print([name for name in heavy if name in sys.modules])
"""
    found = subprocess.run(
        [sys.executable, "-c", script, str(project.root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.stdout.strip() == "[]", found.stderr


def test_a_front_end_without_a_registry_from_the_start(project, fronted, eventually, monkeypatch):
    """It answers by default and says that it is not ready; with the registry back it is."""
    from mlguard.errors import RegistryError

    project.app("app", default_output="5")

    def gone(*_arguments, **_options):
        raise RegistryError("cannot connect")

    monkeypatch.setattr(Registry, "open", gone)
    with fronted(project) as (_, url):
        found = answer(url)
        assert (found["output"], found["default"]) == (5, True)
        assert found["query_id"] < 2**53
        reply = httpx.get(f"{url}/readyz")
        assert (reply.status_code, reply.json()["ready"]) == (503, False)
        assert "cannot connect" in reply.json()["degraded"][0]
        label = {"query_id": 3, "label": 1}
        assert httpx.post(f"{url}/app/update", json=label).status_code == 503
        assert httpx.get(f"{url}/api/apps").status_code == 503
        assert httpx.get(f"{url}/healthz").status_code == 200
        monkeypatch.undo()
        eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200)
