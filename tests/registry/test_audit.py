"""The hash chain: every tampering is found at its place."""

import sqlite3

import pytest


@pytest.fixture
def chained(sqlite_house):
    """A house with a history, and a raw connection to its database."""
    sqlite_house.deploy("one")
    sqlite_house.deploy("two")
    sqlite_house.registry.rollback("iris", automatic=True, reason="bad")
    sqlite_house.registry.close()
    connection = sqlite3.connect(sqlite_house.registry.database.path)
    yield sqlite_house, connection
    connection.close()


def test_an_honest_chain_verifies(house):
    """On both databases, empty and with a history."""
    assert house.registry.verify_chain() is None
    house.deploy("one")
    house.deploy("two")
    house.registry.rollback("iris", automatic=False, reason="bad")
    assert house.registry.verify_chain() is None
    again = house.again().registry
    assert again.verify_chain() is None
    again.close()


@pytest.mark.parametrize(
    "column", ["at", "app", "generation", "kind", "actor", "reason", "version", "detail", "hash"]
)
def test_an_edited_event_is_found(chained, column):
    """Whatever column was changed (fault 39)."""
    house, connection = chained
    value = "'{}'" if column == "detail" else f"{column} + 1" if column == "at" else "'x'"
    value = "99" if column == "generation" else value
    connection.execute(f"UPDATE events SET {column} = {value} WHERE seq = 5")
    connection.commit()
    assert house.registry.verify_chain() == 5


@pytest.mark.parametrize("seq", [1, 5])
def test_a_removed_event_is_found(chained, seq):
    """The first number that is missing is named."""
    house, connection = chained
    connection.execute("DELETE FROM events WHERE seq = ?", (seq,))
    connection.commit()
    assert house.registry.verify_chain() == seq


def test_a_cut_tail_is_found(chained):
    """The chain's head knows how long it was."""
    house, connection = chained
    (last,) = connection.execute("SELECT max(seq) FROM events").fetchone()
    connection.execute("DELETE FROM events WHERE seq = ?", (last,))
    connection.commit()
    assert house.registry.verify_chain() == last


def test_a_rewritten_event_breaks_the_next_link(chained):
    """Hashing the changed event anew moves the break to the one after it."""
    from mlguard.registry.audit import link

    house, connection = chained
    connection.row_factory = sqlite3.Row
    row = dict(connection.execute("SELECT * FROM events WHERE seq = 5").fetchone())
    row["reason"] = "nothing to see here"
    connection.execute(
        "UPDATE events SET reason = ?, hash = ? WHERE seq = 5", (row["reason"], link(row))
    )
    connection.commit()
    assert house.registry.verify_chain() == 6


def test_a_moved_pointer_without_its_event_is_found(chained):
    """The generation of an app is the number of its moves."""
    house, connection = chained
    (last,) = connection.execute("SELECT max(seq) FROM events").fetchone()
    connection.execute("UPDATE apps SET generation = generation + 1")
    connection.commit()
    assert house.registry.verify_chain() == last + 1
