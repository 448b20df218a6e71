"""A connection that is lost at a commit: whoever asks again by the same key learns what happened.

A failover looks like this to a client: the server hangs up, and nobody says whether the last
transaction was committed.
"""

import pytest
import sqlalchemy

from mlguard.errors import RegistryError
from mlguard.registry.database import Database


@pytest.fixture
def house(emptied_postgresql):
    """A house on PostgreSQL: SQLite has no connection to lose."""
    made = emptied_postgresql()
    made.deploy("one")
    return made


def hang_up(house, pid: int) -> None:
    """Have the server end the connection of a process of its own."""
    with house.registry.database.engine.connect() as other:
        other.execute(sqlalchemy.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        other.commit()


def promoted(house) -> list[int]:
    return [one.generation for one in house.registry.events("iris", kind="promoted")]


def lost_in_promotion(house, monkeypatch, *, committed: bool):
    """Promote under the key `k` with the connection lost just before, or after, the commit."""
    registry = house.registry
    operation = house.staged(house.passed("two"), key="k")
    dialect = registry.database.engine.dialect
    commit = dialect.do_commit

    def lost(connection):
        monkeypatch.setattr(dialect, "do_commit", commit)
        pid = connection.driver_connection.info.backend_pid
        if committed:
            commit(connection)
        hang_up(house, pid)
        # The client's library finds out with the next thing that it says.
        connection.execute("SELECT 1")

    monkeypatch.setattr(dialect, "do_commit", lost)
    with pytest.raises(RegistryError) as caught:
        registry.promote(operation, reason="go")
    assert caught.value.exit_code == 3
    assert caught.value.retryable
    return operation


@pytest.mark.parametrize("committed", [False, True])
def test_a_commit_whose_answer_was_lost_is_resolved_by_its_key(house, monkeypatch, committed):
    """Before the commit nothing happened, after it all did; asked again it has happened once."""
    operation = lost_in_promotion(house, monkeypatch, committed=committed)
    assert promoted(house) == ([2, 1] if committed else [1])
    again = house.registry.begin("iris", operation.version_id, key="k")
    assert (again.result is not None) == committed
    assert house.registry.promote(again, reason="go").generation == 2
    assert promoted(house) == [2, 1]
    assert house.active() == "v2"
    assert house.registry.verify() == []
    house.check()


def test_idle_connections_that_were_lost_are_replaced(house):
    """After the server has hung up on everybody, the next question is answered."""
    assert house.active() == "v1"
    stranger = Database(house.registry.database.url)
    with stranger.read() as connection:
        ended = connection.execute(
            sqlalchemy.text(
                "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        ).scalar()
    stranger.close()
    assert ended
    assert house.active() == "v1"
    house.deploy("two")
    house.check()
