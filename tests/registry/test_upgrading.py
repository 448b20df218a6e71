"""A newer mlguard meets an older schema: it waits for whoever deploys by it, and then migrates."""

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import sqlalchemy

from mlguard.errors import ConflictError
from mlguard.registry import upgrading
from mlguard.registry.liveness import Owner, this_process
from mlguard.registry.tables import REVISIONS
from mlguard.registry.upgrading import POLL_S, upgrade

OLDER = "0003"
#: What later revisions have added since.
ADDED = (("outbox", "told_in"), ("holds", "mute"))


@pytest.fixture
def older(house):
    """A house of an older schema with one version that serves and one that is being deployed."""
    house.deploy("one")
    house.operation = house.staged(house.passed("two"))
    database = house.registry.database
    with database.write() as connection:
        for table, column in ADDED:
            connection.execute(sqlalchemy.text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(
            sqlalchemy.text("UPDATE alembic_version SET version_num = :old"), {"old": OLDER}
        )
    yield house
    with database.write() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM operations"))
    upgrade(database)


def say(house, statement: str, **values) -> None:
    """Write something as an older mlguard would, which knows none of today's code."""
    with house.registry.database.write() as connection:
        connection.execute(sqlalchemy.text(statement), values)


class Meanwhile:
    """Stands for the pauses of a migration that waits: something happens in each."""

    def __init__(self, act) -> None:
        self.act = act
        self.pauses = 0

    def __call__(self, seconds: float) -> None:
        self.pauses += 1
        self.act(self.pauses, seconds)


def test_a_migration_waits_until_the_deployment_has_ended(older):
    """It is not touched while it runs; when it has ended, the schema is brought up to date."""

    def act(pauses, _seconds):
        assert older.registry.database.revision() == OLDER
        if pauses == 3:
            say(older, "DELETE FROM operations")

    meanwhile = Meanwhile(act)
    before = older.registry.events()
    upgrade(older.registry.database, clock=older.clock, sleep=meanwhile)
    assert meanwhile.pauses == 3
    assert older.registry.database.revision() == REVISIONS[-1]
    assert older.registry.events() == before
    assert older.active() == "v1"
    older.registry.reconcile()
    older.deploy("three")
    older.check()


def test_a_deployment_that_goes_on_is_named_and_nothing_is_changed(older):
    """One that beats outlasts the wait: exit 4, its owner and its number; it then finishes."""

    def act(_pauses, seconds):
        older.clock.advance(seconds)
        say(older, "UPDATE operations SET beat_at = :now", now=older.clock())

    with pytest.raises(ConflictError, match=r"iris: process \d+ on .* deploy") as caught:
        upgrade(older.registry.database, clock=older.clock, sleep=Meanwhile(act))
    assert caught.value.exit_code == 4
    assert caught.value.data["operation"] == older.operation.id
    assert "mlguard abort iris" in caught.value.hint
    assert older.registry.database.revision() == OLDER
    with older.registry.database.read() as connection:
        left = connection.execute(sqlalchemy.text("SELECT id FROM operations")).scalars().all()
    assert left == [older.operation.id]


def test_a_deployment_that_fell_silent_is_waited_for_no_longer_than_its_lease(older):
    """Half a minute without a sign of life; then it is fenced out as ever."""
    meanwhile = Meanwhile(lambda _pauses, seconds: older.clock.advance(seconds))
    upgrade(older.registry.database, clock=older.clock, sleep=meanwhile)
    assert 30.0 < meanwhile.pauses * POLL_S <= 31.0
    older.registry.reconcile()
    with pytest.raises(ConflictError) as caught:
        older.registry.promote(older.operation, reason="late")
    assert caught.value.data["clause"] == "fence"
    assert older.active() == "v1"


def test_a_deployment_whose_process_is_gone_is_not_waited_for(older):
    """Killed on this machine: its lease has ended at once."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = replace(this_process(), pid=child.pid, born="1")
    assert isinstance(dead, Owner)
    say(older, "UPDATE operations SET owner = :owner", owner=dead.to_text())
    meanwhile = Meanwhile(lambda *_: pytest.fail("it waited for a process that is gone"))
    upgrade(older.registry.database, clock=older.clock, sleep=meanwhile)
    assert older.registry.database.revision() == REVISIONS[-1]


def test_nobody_begins_between_the_look_and_the_change(older, monkeypatch):
    """A deployment that is typed in that moment begins when the schema is the new one."""
    say(older, "DELETE FROM operations")
    say(older, "UPDATE versions SET state = 'PASSED' WHERE state = 'STAGED'")
    version = older.operation.version_id
    under_way = upgrading._under_way
    seen: list[str | None] = []

    def begin() -> None:
        older.registry.begin("iris", version)
        seen.append(older.registry.database.revision())

    other = threading.Thread(target=begin)

    def look(connection, now):
        found = under_way(connection, now)
        assert found is None
        other.start()
        # On PostgreSQL it is seen to wait; on SQLite this transaction is the only one.
        if older.registry.database.path is None:
            until = time.monotonic() + 30
            while not _somebody_waits(older):
                assert not seen, "it did not wait"
                assert time.monotonic() < until
        assert not seen
        return found

    monkeypatch.setattr(upgrading, "_under_way", look)
    upgrade(older.registry.database, clock=older.clock)
    other.join(30)
    assert seen == [REVISIONS[-1]]
    assert older.registry.operation("iris").version_id == version


def _somebody_waits(house) -> bool:
    with house.registry.database.read() as connection:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return bool(connection.execute(sqlalchemy.text(waiting)).scalar())
