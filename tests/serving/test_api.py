"""/api, the page, and the client: who may read, who may change, what comes back."""

import html
import re
import shlex
import stat

import httpx
import pytest

from mlguard.client import Client
from mlguard.errors import (
    ConflictError,
    MlguardError,
    NotFoundError,
    PendingError,
    RefusedError,
    UsageError,
)
from mlguard.serving.access import (
    ForbiddenError,
    UnauthorisedError,
    admin_token,
    may_change,
    may_read,
)

TOKEN = "secret-token"


# --- access ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1337", "127.0.0.1:1", "[::1]:1", "10.0.0.1"]
)
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
def test_this_machine_may_read(host, peer):
    """From a loopback address, under an address or localhost, without a token."""
    may_read({"host": host}, peer, TOKEN)


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("evil.example", "127.0.0.1"),  # a page made a browser resolve its name to us
        ("localhost.evil.example", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("localhost", "10.0.0.7"),
        ("localhost", None),
        ("localhost", "nonsense"),
    ],
)
def test_anybody_else_needs_the_token_to_read(host, peer):
    """Another machine, and another name for this one."""
    with pytest.raises(UnauthorisedError):
        may_read({"host": host}, peer, TOKEN)
    may_read({"host": host, "authorization": f"Bearer {TOKEN}"}, peer, TOKEN)


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer x", f"Basic {TOKEN}", TOKEN, "Bearer sécret"]
)
def test_a_change_needs_the_token(given):
    """No token, another one, another scheme: 401."""
    headers = {"host": "localhost"} | ({"authorization": given} if given is not None else {})
    with pytest.raises(UnauthorisedError) as caught:
        may_change(headers, TOKEN)
    assert caught.value.http_status == 401


def test_a_page_from_elsewhere_may_change_nothing():
    """Even with the token; a page of this server may."""
    headers = {"host": "localhost:1337", "authorization": f"bearer {TOKEN}"}
    may_change(headers, TOKEN)
    may_change(headers | {"origin": "http://localhost:1337"}, TOKEN)
    for origin in ("http://evil.example", "null", "http://localhost:80"):
        with pytest.raises(ForbiddenError):
            may_change(headers | {"origin": origin}, TOKEN)


def test_the_token_is_made_once_and_private(project, monkeypatch):
    """A random token in a file that only its owner can read; the variable wins over it."""
    first = admin_token(project.settings)
    assert len(first) > 40
    assert admin_token(project.settings) == first
    file = project.settings.state_dir / "admin-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir() if "admin-token" in one.name] == [file.name]
    monkeypatch.setenv("MLGUARD_ADMIN_TOKEN", "mine")
    assert admin_token(project.settings) == "mine"


# --- over HTTP -----------------------------------------------------------------------------


@pytest.fixture
def two_versions(project, constant, fronted):
    """A front end of ``app`` (versions old and new) and of ``empty``; its URL."""
    project.app("app")
    project.deploy("app", constant(0), name="old")
    project.deploy("app", constant(1), name="new")
    project.app("empty")
    with fronted(project) as (_, url):
        yield url


@pytest.fixture
def admin(project, two_versions):
    with Client(two_versions, admin_token(project.settings)) as client:
        yield client


def test_api_reads(two_versions):
    """Apps, one app's status, its history; a stranger's name for this machine is refused."""
    with httpx.Client(base_url=two_versions) as plain, Client(two_versions) as client:
        apps = {one["app"]: one for one in client.apps()}
        assert set(apps) == {"app", "empty"}
        assert apps["app"]["active"]["version"] == "new"
        assert apps["app"]["observed_generation"] == 2
        assert apps["app"]["rollback_target"] == "old"
        assert apps["empty"]["active"] is None
        status = plain.get("/api/apps/app").json()
        assert {one["version"] for one in status["versions"]} == {"old", "new"}
        history = plain.get("/api/apps/app/history?limit=3").json()
        assert len(history["events"]) == 3
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", history["events"][0]["at"])
        assert plain.get("/api/apps/app/history?limit=x").status_code == 400
        assert plain.get("/api/apps/nobody").status_code == 404
        assert plain.get("/api/apps", headers={"Host": "evil.example"}).status_code == 401
        assert plain.get("/", headers={"Host": "evil.example"}).status_code == 401


def test_api_changes(two_versions, admin, eventually):
    """Rollback, block, unblock, hold, resume; each shows in what the server answers."""
    done = admin.change("app", "rollback", reason="worse than before")
    assert done["changed"] is True
    assert done["active"]["version"] == "old"
    eventually(lambda: admin.predict("app", [0.5, 0.5])["output"] == 0)
    with pytest.raises(RefusedError):
        admin.change("app", "rollback", reason="nothing further back")
    assert admin.change("app", "block", reason="stop")["generation"] == 4
    eventually(lambda: admin.predict("app", [0.5, 0.5])["default"])
    admin.change("app", "unblock", reason="go on")
    eventually(lambda: not admin.predict("app", [0.5, 0.5])["default"])
    admin.change("app", "hold", reason="freeze", expires="1h")
    status = httpx.get(f"{two_versions}/api/apps/app").json()
    assert [one["reason"] for one in status["holds"]] == ["freeze"]
    admin.change("app", "resume", reason="thaw")
    assert httpx.get(f"{two_versions}/api/apps/app").json()["holds"] == []


def test_a_rollback_is_over_when_its_reply_comes(admin, project, monkeypatch):
    """The version before is held loaded: it is asked there, and answers the very next request."""
    from mlguard.models import isolation

    def none_needed(*_, **__):
        raise AssertionError("no process is needed to try what is loaded")

    monkeypatch.setattr(isolation, "run_in_child", none_needed)
    done = admin.change("app", "rollback", reason="worse than before")
    assert (done["generation"], done["observed_generation"]) == (3, 3)
    assert admin.predict("app", [0.5, 0.5])["output"] == 0
    [event] = [one for one in project.registry.events("app") if one.generation == 3]
    assert event.version == "old"


def test_api_steers_a_rollout(two_versions, admin, project):
    """promote, abort, confirm over HTTP: done once, said twice, refused; approve needs a person."""
    for command in ("promote", "abort", "confirm"):
        done = admin.change("app", command, reason="by program")
        assert (done["ok"], done["changed"]) == (True, False)
    registry = project.registry
    old = registry.version("app", "old")
    operation = registry.begin("app", old.id, steps=[0.5])
    registry.stage(operation)
    assert admin.change("app", "abort", reason="not today")["changed"] is True
    assert registry.candidate("app") is None
    with pytest.raises(RefusedError, match="not today"):
        admin.change("app", "promote", reason="after all")
    with pytest.raises(UsageError):
        admin.change("app", "promote", reason="r", accept_inconclusive=["loos"])
    with pytest.raises(NotFoundError):
        admin.change("app", "approve", reason="r")


def test_api_refuses(two_versions, admin):
    """No token, no reason, unknown keys, commands and apps, a foreign page, a broken body."""
    with Client(two_versions) as anybody, pytest.raises(RefusedError, match="admin token"):
        anybody.change("app", "rollback", reason="no token")
    with pytest.raises(UsageError, match="needs a reason"):
        admin.change("app", "rollback")
    with pytest.raises(UsageError, match="not 'too'"):
        admin.change("app", "rollback", reason="r", too="x")
    with pytest.raises(UsageError, match="30 days"):
        admin.change("app", "hold", reason="freeze", expires="31d")
    with pytest.raises(NotFoundError):
        admin.change("app", "explode", reason="r")
    with pytest.raises(NotFoundError):
        admin.change("other", "block", reason="r")
    with pytest.raises(NotFoundError):
        admin.change("app", "rollback", reason="r", to="nobody")
    headers = {"Authorization": f"Bearer {admin._token}"}
    for more, body, status in (
        ({"Origin": "http://evil.example"}, b'{"reason": "r"}', 403),
        ({}, b"[", 400),
        ({}, b"[]", 400),
        ({}, b"", 400),
    ):
        reply = httpx.post(
            f"{two_versions}/api/apps/app/block", content=body, headers=headers | more
        )
        assert (reply.status_code, set(reply.json())) == (status, {"error", "cause"})
    assert httpx.get(f"{two_versions}/api/apps/app").json()["generation"] == 2


def test_the_page(two_versions):
    """It names what serves, loads nothing, and its curl line works as it stands."""
    page = httpx.get(two_versions)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "new serves" in page.text
    assert "has never been deployed" in page.text
    assert f"{two_versions}/app/predict" in page.text
    command = html.unescape(re.search(r"<pre>(curl.*?)</pre>", page.text)[1])
    body = shlex.split(command)[4]
    answer = httpx.post(shlex.split(command)[-1], content=body).json()
    assert answer["default"] is False


def test_the_client_raises_what_went_wrong(iris, settings_of):
    """Each refusal is the error that the same mistake would be in Python."""
    import numpy as np
    import pandas as pd

    from mlguard.serving.embedded import served

    settings = settings_of(name="iris", app={"slo_ms": 5000})
    with served(settings, iris.json, iris.path) as url, Client(url + "/") as client:
        row = [4.3, 2.0, 1.0, 0.1]
        answer = client.predict("iris", row, uid="u", groups={"sex": "F"})
        assert answer["output"] == 0
        assert client.predict("iris", np.array(row))["output"] == 0
        assert client.predict("iris", tuple(np.float64(one) for one in row))["output"] == 0
        assert len(client.predict_batch("iris", np.array([row, row]))) == 2
        assert len(client.predict_batch("iris", pd.DataFrame([row]).to_numpy())) == 1
        assert client.predict_batch("iris", []) == []
        client.update("iris", answer["query_id"], np.int64(0))
        assert client.health()["ready"] is True
        with pytest.raises(ConflictError, match="another label"):
            client.update("iris", answer["query_id"], 1)
        with pytest.raises(NotFoundError):
            client.update("iris", 10**12, 1)
        with pytest.raises(UsageError, match="the model takes 4"):
            client.predict("iris", [1])
        with pytest.raises(NotFoundError, match="no app"):
            client.predict("other", row)
    with pytest.raises(MlguardError, match="no server answers") as caught:
        Client(url, timeout=2).predict("iris", row)
    assert "mlguard up" in caught.value.hint


def test_overload_is_503_with_retry_after(misbehaving, moody, settings_of):
    """When more waits than the SLO can clear, callers are turned away at once, and told when
    to come back; nobody gets anything but 200 and 503."""
    import threading

    from mlguard.serving.embedded import served

    settings = settings_of(app={"slo_ms": 900}, model={"allow_pickle": True})
    with served(settings, moody.json, moody.path) as url:
        replies = []

        def ask():
            with httpx.Client(base_url=url, timeout=30) as client:
                for _ in range(3):
                    body = {"input_batch": [[misbehaving.SLOW, 1.0]] * 40}
                    replies.append(client.post("/app/predict", json=body))

        callers = [threading.Thread(target=ask) for _ in range(12)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        statuses = {reply.status_code for reply in replies}
        assert statuses == {200, 503}
        refused = next(reply for reply in replies if reply.status_code == 503)
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"] == "Overloaded"
        with Client(url) as client:
            body = client.predict("app", [0, 1.0])
            assert body["query_id"]


def test_a_503_is_pending():
    """The client tells overload by an error that says that trying again is safe."""
    assert PendingError.retryable
