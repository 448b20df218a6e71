"""``mlguard doctor``: it finds what is wrong, says what to do, and changes nothing."""

import socket

import pytest


@pytest.fixture
def typed(mlguard, project):
    """Return the findings by their id, with the exit code."""

    def run(**environment):
        done = mlguard("doctor", "--json", folder=project, **environment)
        assert done.document["exit_code"] == done.code, done.err
        return done.code, {one["id"]: one for one in done.document["findings"]}

    return run


def test_a_project_in_order(mlguard, project, typed):
    """Nothing is broken; each subject is named; nothing is changed by looking."""
    registry = (project / ".mlguard/registry.db").read_bytes()
    code, found = typed()
    assert code == 0
    wanted = {"environment", "libraries", "settings.iris", "disk", "registry", "artifacts"}
    assert wanted | {"server", "mail", "tokens"} <= set(found)
    assert not [one for one in found.values() if one["state"] == "broken"]
    assert found["libraries"]["state"] == "ok"
    assert (project / ".mlguard/registry.db").read_bytes() == registry
    told = mlguard("doctor", folder=project)
    assert told.code == 0
    assert "✓ registry: " in told.out


def test_what_is_broken_is_named_with_the_way_out(project, typed):
    """A token for everybody, a mail server that is not there, lost bytes: exit 7, one line each."""
    token = project / ".mlguard/admin-token"
    token.write_text("secret\n")
    token.chmod(0o644)
    for blob in (project / ".mlguard/artifacts").rglob("*"):
        if blob.is_file():
            blob.unlink()
    with socket.socket() as nobody:
        # Bound and not listening: nobody else can take the port meanwhile.
        nobody.bind(("127.0.0.1", 0))
        toml = project / "mlguard.toml"
        toml.write_text(
            toml.read_text() + "\n[notify.email]\n"
            f'smtp = "smtp://127.0.0.1:{nobody.getsockname()[1]}"\n'
            'to = ["a@example.com"]\npassword_env = "NO_SUCH_PASSWORD"\n'
        )
        code, found = typed()
    assert code == 7
    broken = {name for name, one in found.items() if one["state"] == "broken"}
    assert broken == {"tokens", "mail.server", "mail.password", "artifacts.iris.v1"}
    assert all(found[name]["next"] for name in broken)
    assert "chmod 600" in found["tokens"]["next"]
    assert "secret" not in str(found)


def test_settings_that_cannot_be_read_are_exit_2(project, typed):
    """All the rest is looked at all the same."""
    toml = project / "serving/iris/app.toml"
    toml.write_text(toml.read_text() + "\n[gate.baselin]\nmargin = 0.1\n")
    code, found = typed()
    assert code == 2
    assert found["settings.iris"]["state"] == "broken"
    assert found["registry"]["state"] == "ok"


def installed(folder, name, version, *requirements):
    """Write what an installer leaves behind about a package."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {one}\n" for one in requirements)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    )


def test_libraries_are_held_against_the_tested_bounds(project, monkeypatch, tmp_path):
    """An old one is told with the bounds and the command that mends it; one not there is broken."""
    from mlguard.config import load_project
    from mlguard.deploy.doctor import examine

    packages = tmp_path / "packages"
    installed(packages, "mlguard", "9.9", "uvicorn>=0.30", "mlguard-needs-this>=2", "numpy>=1")
    installed(packages, "uvicorn", "0.1")
    monkeypatch.syspath_prepend(packages)
    found = {one.id: one for one in examine(load_project(project)).findings}
    assert found["libraries.uvicorn"].state == "warn"
    assert "uvicorn 0.1; tested are >=0.30" in found["libraries.uvicorn"].summary
    assert found["libraries.uvicorn"].next_step == "pip install 'uvicorn>=0.30'"
    assert found["libraries.mlguard-needs-this"].state == "broken"
    assert found["libraries"].summary.startswith("1 libraries within")


def test_before_the_first_deployment_nothing_is_made(mlguard, tmp_path):
    """A fresh project has no registry, and still has none afterwards."""
    folder = tmp_path / "fresh"
    assert mlguard("init", folder, "--json", folder=tmp_path).document["files"]
    done = mlguard("doctor", "--json", folder=folder)
    assert done.code == 0
    assert "first deploy makes it" in str(done.document["findings"])
    assert not (folder / ".mlguard").exists()


def test_each_settings_document_keeps_to_the_schema(mlguard, project):
    """config, with and without an app, and one pass of the watcher."""
    assert mlguard("config", "--json", folder=project).document["settings"]
    assert mlguard("config", "iris", "--json", folder=project).document["settings"]["app"]
    assert mlguard("monitor", "--once", "--json", folder=project).document["degraded"] == []
