"""A front end that was begun ahead: it waits, becomes what it is told, or goes without a word."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from mlguard.serving.ahead import FrontAhead

TELLS = """
import json, os, sys
out, *rest = sys.argv[1:]
number = int(rest[rest.index("--fd") + 1])
said = {
    "argv": rest, "name": __name__, "fasted": "SECRET_OF_BEFORE" not in os.environ,
    "told": os.environ["TOLD"], "read": os.read(number, 100).decode(),
    "loaded": sorted({"fastapi", "sqlalchemy", "uvicorn"} & set(sys.modules)),
}
with open(out, "w") as file:
    json.dump(said, file)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that writes down how it was started."""
    (tmp_path / "tells_how.py").write_text(TELLS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "tells_how"


def test_it_becomes_what_it_is_told(module, tmp_path, monkeypatch):
    """Options, environment and descriptors arrive whole, however long they are."""
    monkeypatch.setenv("SECRET_OF_BEFORE", "1")
    ahead = FrontAhead(module)
    reading, writing = os.pipe()
    os.write(writing, b"through the pipe")
    out = tmp_path / "said.json"
    environment = {"TOLD": "x" * 300_000, "PATH": os.environ["PATH"]}
    process = ahead.take([str(out), "--root", "ä b"], {"--fd": reading}, environment)
    assert process is not None
    assert process.wait(60) == 0
    os.close(reading)
    os.close(writing)
    said = json.loads(out.read_text())
    assert said["argv"][:3] == ["--root", "ä b", "--fd"]
    assert (said["name"], said["fasted"]) == ("__main__", True)
    assert said["told"] == environment["TOLD"]
    assert said["read"] == "through the pipe"
    assert said["loaded"] == ["fastapi", "sqlalchemy", "uvicorn"]
    assert ahead.take([], {}, {}) is None


def test_what_nobody_took_is_ended(module, tmp_path):
    """Where there is nothing to serve, no process stays behind."""
    ahead = FrontAhead(module)
    (child,) = [one for one in psutil.Process().children() if module in one.cmdline()]
    ahead.close()
    assert not child.is_running()
    assert ahead.take([], {}, {}) is None


def test_one_that_is_gone_is_not_counted_on(module):
    """Whoever finds it dead starts a front end the ordinary way."""
    ahead = FrontAhead(module)
    (child,) = [one for one in psutil.Process().children() if module in one.cmdline()]
    child.kill()
    # Its end of the socket is closed when it is dead, and it is dead when it can be waited for.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ahead.take(["x"], {}, dict(os.environ)) is None
    ahead.close()


def test_it_ends_with_its_parent(module, tmp_path, eventually):
    """A supervisor that is killed while it reads the settings leaves nothing behind."""
    code = (
        "import os, signal, sys\n"
        "from mlguard.serving.ahead import FrontAhead\n"
        f"ahead = FrontAhead({module!r})\n"
        "print(ahead._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    eventually(lambda: not psutil.pid_exists(pid), what="the end of the child")
