"""What people need at the worst moment works whatever state their files are in."""

import shutil

import pytest


@pytest.fixture(params=["an unknown key", "no folder"])
def unsettled(request, project):
    """A deployed app whose app.toml is not valid, or gone."""
    folder = project / "serving" / "iris"
    if request.param == "no folder":
        shutil.rmtree(folder)
    else:
        file = folder / "app.toml"
        file.write_text(file.read_text().replace("target =", "targett ="))
    return project


def test_going_back_never_waits_for_a_settings_file(mlguard, unsettled):
    """Default output, history, hold and status need no valid app.toml, and status names it."""
    blocked = mlguard("rollback", "iris", "--to-default", "--reason", "x", folder=unsettled)
    assert blocked.code == 0, blocked.err
    assert "default output" in blocked.out
    assert mlguard("unblock", "iris", "--reason", "x", folder=unsettled).code == 0
    assert mlguard("hold", "iris", "--reason", "x", folder=unsettled).code == 0
    assert "blocked" in mlguard("history", "iris", folder=unsettled).out
    for words in (["status"], ["status", "iris"]):
        status = mlguard(*words, folder=unsettled)
        assert "iris  v1" in status.out
        # A long path may be broken at the edge of the screen.
        assert "app.toml" in "".join(status.out.split())


def test_an_app_that_nobody_knows_is_still_named_as_such(mlguard, unsettled):
    """A typing error is answered as before."""
    done = mlguard("status", "nosuch", folder=unsettled)
    assert done.code == 2
    assert "nosuch" in done.err
