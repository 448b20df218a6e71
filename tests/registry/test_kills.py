"""kill -9 at every point of every command that writes: nothing half done, nothing forgotten.

Registering, judging, staging, promoting, going back by hand and by itself, blocking, tidying up:
some kills of each in the fast set, and in the long one a kill at every point.  Each kill hits a
process of its own on a copy of one prepared registry: v1 is STANDBY, v2 is BAKING or LIVE, v3
has passed its gate, or is about to.  Afterwards a new process must find the state of before or
the state of after, whole; the same command given again must succeed; and the next deployment
must not be blocked.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlguard.errors import ConflictError, RefusedError
from mlguard.registry import Mode, State

COMMANDS = ("register", "gate", "stage", "promote", "rollback", "manual", "block", "reconcile")
#: How many points of a command are killed at in the fast set.
KILLS = 7
#: How often every point is killed at in the long set.
ROUNDS_IN_SOAK = 3
#: What is promised of the two sets.
AT_LEAST, AT_LEAST_IN_SOAK = 50, 500


class Killer:
    """The process of ``killed.py`` that forks the victims."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("killed.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, root: Path, command: str, point: int = 0) -> dict:
        line = json.dumps({"root": str(root), "command": command, "point": point})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def killer():
    made = Killer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def prepared(make_sqlite, tmp_path_factory) -> Callable[[str], Path]:
    """The registry as it is before a command, by command."""
    known: dict[str, Path] = {}

    def prepare(command: str) -> Path:
        if command not in known:
            root = tmp_path_factory.mktemp(command)
            house = make_sqlite(root)
            house.deploy("one")
            house.deploy("two", confirm=command != "manual")
            if command in ("stage", "promote"):
                house.registry.confirm("iris", served_s=1)
            if command == "gate":
                version = house.register("three")
                house.registry.mark(version.id, State.VERIFIED, reason="smoke test passed")
            else:
                version = house.passed("three")
            if command == "reconcile":
                # By the victim's clock this operation has long been silent.
                house.staged(version)
            house.registry.close()
            known[command] = root
        return known[command]

    return prepare


def before_or_after(house, command: str) -> bool:
    """Assert that a command did nothing or all of it; return whether it happened."""
    registry = house.registry
    state, states = house.check(), house.states()
    last = registry.events("iris", limit=1)[0]
    mail = sum(registry.outbox.counts().values())
    if command == "register":
        happened = "v4" in states
        if happened:
            model = registry.version("iris", "v4").manifest["model_sha256"]
            assert registry.artifacts.get(model).read_text() == "new"
            assert last.kind == "registered"
        assert state.generation == 2
        return happened
    if command == "gate":
        assert state.generation == 2
        digest = registry.version("iris", "v3").digest
        happened = states["v3"] is State.PASSED
        # What it found is kept, whether or not its verdict came to be acted on.
        assert len(registry.evidence("iris", digest)) == 1 or not happened
        assert states["v3"] is (State.PASSED if happened else State.VERIFIED)
        return happened
    if command in ("stage", "promote"):
        happened = state.generation == 3
        if happened:
            assert states == {"v1": State.STANDBY, "v2": State.STANDBY, "v3": State.BAKING}
            assert (last.kind, last.generation) == ("promoted", 3)
            assert registry.operation("iris") is None
        else:
            assert states["v2"] is State.LIVE
            assert states["v3"] in (State.PASSED, State.STAGED)
            assert (registry.candidate("iris") is None) or registry.operation("iris") is not None
        assert happened is (command == "promote" and state.generation == 3)
        return happened or (command == "stage" and states["v3"] is State.STAGED)
    if command == "reconcile":
        happened = registry.operation("iris") is None
        assert states["v3"] is (State.PASSED if happened else State.STAGED)
        return happened
    happened = state.generation == 3
    moves = registry.automatic_moves("iris")
    if not happened:
        assert (state.generation, state.mode) == (2, Mode.SERVE)
        assert (moves, registry.holds("iris"), mail) == ([], [], 0)
        assert registry.incidents("iris") == []
        return False
    automatic = command != "manual"
    assert len(moves) == len(registry.holds("iris")) == (1 if automatic else 0)
    assert mail == 1
    assert (last.moved, last.generation) == (True, 3)
    expected = {
        "rollback": {"v1": State.LIVE, "v2": State.QUARANTINED},
        "manual": {"v1": State.LIVE, "v2": State.PASSED},
        "block": {"v1": State.STANDBY, "v2": State.QUARANTINED},
    }[command]
    assert expected.items() <= states.items()
    if automatic:
        version = registry.version("iris", "v2")
        assert registry.quarantined("iris", version.digest).incident == version.incident == 1
    return True


def settles(house, command: str, *, happened: bool) -> None:
    """Assert that the command may be given again, and that a deployment is not blocked."""
    registry = house.registry
    house.clock.now += 1000
    registry.reconcile()
    assert registry.reconcile() == []
    assert registry.operation("iris") is None
    assert registry.candidate("iris") is None
    generation = registry.app("iris").generation
    if command == "register":
        assert house.register("new").name == "v4"
    elif command == "gate":
        version = registry.version("iris", "v3")
        evidence = house.judge(version)
        registry.mark(version.id, State.PASSED, reason="gate passed", evidence_id=evidence)
        assert house.states()["v3"] is State.PASSED
    elif command == "manual":
        state = registry.rollback("iris", automatic=False, reason="bad", key="k")
        assert (state.generation, state.active.name) == (3, "v1")
        assert registry.app("iris").generation == 3
    elif command in ("rollback", "block"):
        move = registry.rollback if command == "rollback" else registry.block
        if happened:
            with pytest.raises((ConflictError, RefusedError)):
                move("iris", reason="bad", automatic=True, expected_generation=2)
            assert registry.app("iris").generation == generation
        else:
            move("iris", reason="bad", automatic=True, expected_generation=2)
        registry.resume("iris", "looked at it")
    elif command == "promote" and happened:
        version = registry.version("iris", "v3")
        again = registry.begin("iris", version.id, key="k")
        assert registry.promote(again, reason="again").generation == 3
        assert registry.app("iris").generation == 3
    house.judge(house.register("last"))
    before = registry.app("iris").generation
    house.deploy("last", supersede=True)
    assert registry.app("iris").generation == before + 1
    house.check()


def kill(make_sqlite, killer, prepared, *, folder: Path, command: str, point: int) -> bool:
    """Kill one command at one point and assert everything; return whether it was reached."""
    root = folder / f"{command}-{point}"
    shutil.copytree(prepared(command), root)
    answer = killer(root, command, point)
    if not answer["killed"]:
        assert answer["status"] == 0
    house = make_sqlite(root)
    happened = before_or_after(house, command)
    if answer["acknowledged"]:
        assert happened, "an acknowledged commit was lost"
    settles(house, command, happened=happened)
    house.registry.close()
    shutil.rmtree(root)
    return bool(answer["killed"])


@pytest.fixture(scope="module")
def points_of(killer, prepared, make_sqlite, tmp_path_factory) -> Callable[[str], list[str]]:
    """The points that a command passes when nobody kills it, by command."""
    known: dict[str, list[str]] = {}

    def passed(command: str) -> list[str]:
        if command not in known:
            root = tmp_path_factory.mktemp(f"{command}-whole") / "root"
            shutil.copytree(prepared(command), root)
            known[command] = killer(root, command)["points"]
            house = make_sqlite(root)
            assert before_or_after(house, command)
            house.registry.close()
        return known[command]

    return passed


def chosen(command: str, points: list[str]) -> list[int]:
    """Choose where a command is killed in the fast set: around its commit, and by lot."""
    commit = len(points) - points[::-1].index("before COMMIT")
    every = range(1, len(points) + 1)
    around = [one for one in (1, commit - 1, commit, commit + 1) if one in every]
    others = sorted(set(every) - set(around))
    random.Random(command).shuffle(others)
    return sorted([*dict.fromkeys(around), *others][:KILLS])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_leaves_before_or_after(
    make_sqlite, killer, prepared, points_of, tmp_path, *, command
):
    """Some points of each command, its commit among them."""
    for point in chosen(command, points_of(command)):
        assert kill(make_sqlite, killer, prepared, folder=tmp_path, command=command, point=point)


def test_there_are_as_many_kills_as_promised(points_of):
    """Fifty in the fast set, five hundred in the long one, around every write of each command."""
    points = {command: points_of(command) for command in COMMANDS}
    assert sum(len(chosen(*one)) for one in points.items()) >= AT_LEAST
    assert ROUNDS_IN_SOAK * sum(map(len, points.values())) >= AT_LEAST_IN_SOAK
    for command, passed in points.items():
        assert {"before COMMIT", "after COMMIT or ROLLBACK"} <= set(passed), command
        assert any(one.startswith(("INSERT", "UPDATE", "DELETE")) for one in passed), command
    # What is stored as a file is half there at more moments than a row is.
    assert {"before fsync", "after fsync", "os.rename"} <= set(points["register"])
    for command in ("rollback", "manual", "block", "promote"):
        written = {one for one in points[command] if one.startswith("INSERT INTO ")}
        assert {"INSERT INTO events", "INSERT INTO outbox"} <= written or command == "promote"


@pytest.mark.soak
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("turn", range(ROUNDS_IN_SOAK))
def test_a_kill_at_every_point(
    make_sqlite, killer, prepared, points_of, tmp_path, *, command, turn
):
    """Every statement, commit, rename and fsync of every command."""
    point = 1
    while kill(make_sqlite, killer, prepared, folder=tmp_path, command=command, point=point):
        point += 1
    assert point == len(points_of(command)) + 1
