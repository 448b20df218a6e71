"""Two at once: one wins, the other conflicts, generations stay gap-free."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mlguard.errors import ConflictError, MlguardError
from mlguard.registry import Registry, State


def together(*commands):
    """Give commands at the same moment, each in a thread; return results or errors."""
    barrier = threading.Barrier(len(commands))
    results = [None] * len(commands)

    def give(number, command):
        barrier.wait()
        try:
            results[number] = command()
        except MlguardError as error:
            results[number] = error

    threads = [
        threading.Thread(target=give, args=(number, command))
        for number, command in enumerate(commands)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_two_deployments_begun_together(house):
    """One gets the lease, the other exit 4 with its name (fault 8)."""
    house.deploy("zero")
    for turn in range(10):
        versions = [house.passed(f"{turn} {who}") for who in "ab"]
        results = together(
            *(lambda one=one: house.registry.begin("iris", one.id) for one in versions)
        )
        lost = [one for one in results if isinstance(one, MlguardError)]
        (won,) = [one for one in results if not isinstance(one, MlguardError)]
        assert [type(one) for one in lost] == [ConflictError]
        assert lost[0].data["operation"] == won.id
        house.registry.stage(won)
        house.registry.promote(won, reason="won")
        house.registry.confirm("iris", served_s=1)
    assert house.check().generation == 11


def test_a_promotion_given_twice_together_happens_once(house):
    """A retry that overtakes its own first try gets the same answer."""
    house.deploy("zero")
    operation = house.staged(house.passed("one"))
    promote = lambda: house.registry.promote(operation, reason="go")
    first, second = together(promote, promote)
    assert first.generation == second.generation == 2
    assert house.check().generation == 2


def test_promotion_against_automatic_rollback(house):
    """Whoever comes second finds another generation; the rollback never waits (fault 9)."""
    house.deploy("zero")
    house.deploy("one")
    operation = house.staged(house.passed("two"))
    promoted, rolled = together(
        lambda: house.registry.promote(operation, reason="go"),
        lambda: house.registry.rollback(
            "iris", automatic=True, reason="bad", expected_generation=2
        ),
    )
    assert sum(isinstance(one, ConflictError) for one in (promoted, rolled)) == 1
    assert house.check().generation == 3
    assert house.active() == ("v1" if isinstance(promoted, ConflictError) else "v3")


def test_the_same_judgement_given_twice_moves_once(house):
    """Two watchers that saw the same window: one rolls back, one is told it is old news."""
    for content in ("zero", "one", "two"):
        house.deploy(content)
    move = lambda: house.registry.rollback(
        "iris", automatic=True, reason="bad", expected_generation=3
    )
    results = together(move, move)
    assert sum(isinstance(one, ConflictError) for one in results) == 1
    assert len(house.registry.automatic_moves("iris")) == 1
    assert house.check().generation == 4


def test_a_name_registered_twice_together(house):
    """The same content is one version; other content under one name conflicts."""
    same = together(*[lambda: house.register("one", name="a")] * 3)
    assert len({one.id for one in same}) == 1
    results = together(
        lambda: house.register("two", name="b"), lambda: house.register("three", name="b")
    )
    assert sum(isinstance(one, ConflictError) for one in results) == 1
    assert len(house.registry.versions("iris")) == 2


def test_apps_do_not_wait_for_one_another_s_mistakes(house):
    """Interleaved commands on several apps leave one gap-free chain."""
    for app in ("iris", "credit"):
        house.deploy("zero", app=app)

    def busy(app):
        for turn in range(4):
            house.deploy(f"{app} {turn}", app=app)

    assert together(lambda: busy("iris"), lambda: busy("credit")) == [None, None]
    assert house.check("iris").generation == 5
    assert house.check("credit").generation == 5


def test_mail_is_taken_up_once(house):
    """Two senders share the queue without sending anything twice."""
    outbox = house.registry.outbox
    for number in range(10):
        outbox.enqueue("iris", "report", {"number": number})
    ids = [one.id for one in outbox.waiting()]

    def send():
        return [one for at in range(0, 20, 2) for one in outbox.take(ids[at : at + 2], "<m@x>", 60)]

    taken = [one.id for mail in together(send, send, send) for one in mail]
    assert sorted(taken) == ids


# --- processes ---------------------------------------------------------------------------

DEPLOYER = """
import json, sys
from mlguard.config import ProjectSettings
from mlguard.errors import MlguardError
from mlguard.registry import Registry

root, version = sys.argv[1], int(sys.argv[2])
now = [float(sys.argv[3])]
registry = Registry.open(ProjectSettings(root=root), clock=lambda: now[0])
print("ready", flush=True)
for line in sys.stdin:
    command, *rest = line.split()
    try:
        if command == "begin":
            operation = registry.begin("iris", version)
            registry.stage(operation)
        elif command == "promote":
            registry.promote(operation, reason="go")
        elif command == "clock":
            now[0] = float(rest[0])
        elif command == "version":
            version = int(rest[0])
        answer = {"exit_code": 0}
    except MlguardError as error:
        answer = {"exit_code": error.exit_code, "clause": error.data.get("clause")}
    print(json.dumps(answer), flush=True)
"""


class Deployer:
    """A deployment in a process of its own, that does what it is told."""

    def __init__(self, root: Path, version: int, now: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DEPLOYER, str(root), str(version), str(now)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, command: str) -> None:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def __call__(self, command: str) -> dict:
        self.tell(command)
        return self.answer()


@pytest.fixture
def deployers(sqlite_house):
    """Two processes that deploy different versions of one app."""
    sqlite_house.deploy("zero")
    made = [
        Deployer(sqlite_house.project.root, sqlite_house.passed(content).id, sqlite_house.clock())
        for content in ("one", "two")
    ]
    yield made
    for one in made:
        one.process.kill()
        one.process.communicate()


def test_a_stopped_deployer_changes_nothing_when_it_wakes(sqlite_house, deployers):
    """SIGSTOP past its lease, another deploys, SIGCONT: exit 4 (fault 7)."""
    first, second = deployers
    assert first("begin") == {"exit_code": 0}
    assert second("begin")["exit_code"] == 4
    os.kill(first.process.pid, signal.SIGSTOP)
    first.tell("promote")
    later = sqlite_house.clock.now + 31
    assert second(f"clock {later}") == {"exit_code": 0}
    assert second("begin") == {"exit_code": 0}
    assert second("promote") == {"exit_code": 0}
    before = sqlite_house.facts()
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.answer() == {"exit_code": 4, "clause": "fence"}
    assert sqlite_house.facts() == before
    assert sqlite_house.active() == "v3"
    sqlite_house.check()


def test_a_killed_deployer_does_not_make_the_next_one_wait(sqlite_house, deployers):
    """Its process is gone, so its lease has ended at once (fault 3)."""
    first, second = deployers
    assert first("begin") == {"exit_code": 0}
    first.process.kill()
    first.process.wait()
    assert second("begin") == {"exit_code": 0}
    assert sqlite_house.states() == {
        "v1": State.LIVE,
        "v2": State.PASSED,
        "v3": State.STAGED,
    }
    assert second("promote") == {"exit_code": 0}
    assert sqlite_house.check().generation == 2


def test_two_processes_deploy_together(sqlite_house, deployers):
    """One wins, one exits 4."""
    for one in deployers:
        one.tell("begin")
    codes = sorted(one.answer()["exit_code"] for one in deployers)
    assert codes == [0, 4]
    sqlite_house.check()


@pytest.mark.soak
def test_writers_that_are_killed_lose_nothing_they_were_told(make_sqlite, tmp_path):
    """Four processes move one app, killed at random: every acknowledged generation is there."""
    house = make_sqlite(tmp_path)
    house.deploy("zero")
    house.registry.close()
    program = (
        "import sys\n"
        "from mlguard.config import ProjectSettings\n"
        "from mlguard.errors import MlguardError\n"
        "from mlguard.registry import Registry\n"
        "registry = Registry.open(ProjectSettings(root=sys.argv[1]))\n"
        "while True:\n"
        "    for command in (registry.block, registry.unblock):\n"
        "        try:\n"
        "            print(command('iris', 'again').generation, flush=True)\n"
        "        except MlguardError:\n"
        "            pass\n"
    )

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )

    acknowledged = 0
    until = time.monotonic() + 60
    running = [start() for _ in range(4)]
    while time.monotonic() < until:
        time.sleep(1.5)
        victim = running.pop(0)
        victim.kill()
        said = victim.communicate()[0].split()
        acknowledged = max([acknowledged, *map(int, said[-1:])])
        running.append(start())
    for victim in running:
        victim.kill()
        said = victim.communicate()[0].split()
        acknowledged = max([acknowledged, *map(int, said[-1:])])
    again = Registry.open(house.project)
    assert again.app("iris").generation >= acknowledged > 4
    again.close()
    house.check()


# --- every command that looks before it writes -------------------------------------------


def race_once(house, turn: int) -> None:
    """Give each command three times at once, on an app that nobody has seen, and compare."""
    app = f"app-{turn}"
    registry = house.registry

    def same(command):
        results = together(*[command] * 3)
        for one in results:
            assert not isinstance(one, MlguardError), one
        assert all(one == results[0] for one in results), results
        return results[0]

    version = same(lambda: house.register("one", app=app))
    assert len(registry.versions(app)) == 1
    same(lambda: registry.mark(version.id, State.VERIFIED, reason="loaded"))
    together(*[lambda: house.judge(version)] * 3)
    assert len(registry.evidence(app, version.digest)) == 3
    same(lambda: registry.mark(version.id, State.PASSED, reason="passed"))
    operation = same(lambda: registry.begin(app, version.id, key="k"))
    assert same(lambda: registry.stage(operation)).state is State.STAGED
    assert same(lambda: registry.promote(operation, reason="go")).generation == 1
    opened = same(
        lambda: registry.open_incident(
            app, monitor="m", version_id=version.id, summary="s", facts={}, level="alert"
        )
    )
    assert [one.id for one in registry.incidents(app)] == [opened.id]
    same(lambda: registry.hold(app, "wait", incident=opened.id))
    assert len(registry.holds(app)) == 1
    until = house.clock() + 3600
    same(lambda: registry.waive(app, "a.b", owner="ann", reason="known", expires=until))
    assert len(registry.waiver_book(app).waivers) == 1
    assert sorted(map(len, together(*[lambda: registry.resume(app, "done")] * 3))) == [0, 0, 1]
    same(lambda: registry.update_incident(opened.id, state="closed", cause="known"))
    same(lambda: registry.set_monitor_state(app, version.id, 1, "m", {"n": 1}))
    same(lambda: registry.set_reference(app, version.digest, {"n": 1}))
    same(lambda: registry.server_hello(app, host="h", pid=1, url="u"))
    blocks = together(*[lambda: registry.reserve_ids(app, version.id, 1, app, 10)] * 3)
    assert len({one.start for one in blocks}) == 3

    def lease(owner):
        had = registry.lease(app, owner, 30)
        registry.give_up_lease(app, owner)
        return had

    held = together(*[lambda owner=owner: lease(owner) for owner in "abc"])
    assert all(isinstance(one, bool) for one in held), held
    assert any(held)
    same(lambda: registry.server_bye(app))
    same(lambda: registry.block(app, "stop").generation)
    same(lambda: registry.unblock(app, "go").generation)
    house.check(app)


def test_every_command_given_together(house):
    """Whoever looks before it writes finds what the other wrote: no error, nothing twice."""
    for turn in range(3):
        race_once(house, turn)


@pytest.mark.soak
def test_every_command_given_together_300_times(house):
    """The same, often enough to meet what happens rarely."""
    for turn in range(300):
        race_once(house, turn)


def deploy_in_pairs(house, deployers, turns):
    """Have two processes deploy at once, again and again; assert that always one wins."""
    first, second = deployers
    for turn in range(turns):
        versions = [house.passed(f"{turn} {who}") for who in "ab"]
        for one, version in zip(deployers, versions, strict=True):
            assert one(f"version {version.id}") == {"exit_code": 0}
        for one in deployers:
            one.tell("begin")
        answers = [one.answer() for one in deployers]
        assert sorted(one["exit_code"] for one in answers) == [0, 4], answers
        winner = first if answers[0]["exit_code"] == 0 else second
        assert winner("promote") == {"exit_code": 0}
        assert house.registry.confirm("iris", served_s=1) is not None
    assert house.check().generation == turns + 1


def test_pairs_of_processes_deploy_together(sqlite_house, deployers):
    """One wins, the other exits 4, no generation is missing (fault 8)."""
    deploy_in_pairs(sqlite_house, deployers, 5)


@pytest.mark.soak
def test_a_hundred_pairs_of_processes_deploy_together(sqlite_house, deployers):
    """A hundred times."""
    deploy_in_pairs(sqlite_house, deployers, 100)
