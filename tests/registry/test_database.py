"""Opening, schema, waiting and failing of the database."""

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy

from mlguard.config import ProjectSettings
from mlguard.errors import ConfigError, MlguardError, RegistryError, UsageError
from mlguard.registry import Registry, database
from mlguard.registry.database import Database
from mlguard.registry.tables import REVISIONS, metadata


def test_the_first_opening_makes_it_and_the_second_finds_it(tmp_path):
    """WAL, full synchronisation, foreign keys; the folder is made too."""
    project = ProjectSettings(root=tmp_path)
    with Registry.open(project) as registry:
        assert registry.recipients == ("file",)
        with registry.database.read() as connection:
            pragma = lambda name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            assert pragma("journal_mode") == "wal"
            assert pragma("synchronous") == 2
            assert pragma("foreign_keys") == 1
        identity = "SELECT value FROM meta WHERE key = 'installation'"
        with registry.database.read() as connection:
            first = connection.exec_driver_sql(identity).scalar()
    assert (tmp_path / ".mlguard" / "registry.db").is_file()
    with Registry.open(project) as registry, registry.database.read() as connection:
        assert connection.exec_driver_sql(identity).scalar() == first


def test_the_schema_that_is_migrated_is_the_schema_of_the_tables(house):
    """Migrations and tables say the same, on both databases."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with house.registry.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_revisions_are_those_of_the_migrations():
    """The list that opening looks at names every migration, in order."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "mlguard.registry:migrations")
    config.set_main_option("path_separator", "os")
    found = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_opening_a_current_registry_is_cheap_and_loads_no_alembic(sqlite_house):
    """In a process of its own: no alembic, and well under 50 ms beside the imports."""
    sqlite_house.registry.close()
    program = (
        "import sys, time, sqlalchemy, psutil\n"
        "from mlguard.registry import Registry\n"
        "from mlguard.registry.lifecycle import State\n"
        "from mlguard.registry.store import Registry\n"
        "from mlguard.config import ProjectSettings\n"
        "project = ProjectSettings(root=sys.argv[1])\n"
        "started = time.process_time()\n"
        "registry = Registry.open(project)\n"
        "spent = time.process_time() - started\n"
        "registry.app('iris')\n"
        "print(spent, [name for name in sys.modules if name.startswith('alembic')])\n"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(sqlite_house.project.root)],
        capture_output=True,
        text=True,
        check=True,
    )
    spent, loaded = found.stdout.strip().split(" ", 1)
    assert loaded == "[]"
    assert float(spent) < 0.05


def test_the_life_cycle_is_imported_without_sqlalchemy():
    """Whoever only needs the table of states does not pay for a database."""
    program = (
        "import sys\nfrom mlguard.registry.lifecycle import State\n"
        "from mlguard.registry import Mode\nprint('sqlalchemy' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"


def test_an_older_mlguard_refuses_a_newer_schema(house):
    """Exit 2, and what to do; nothing is read or written (fault 40)."""
    with house.registry.database.write() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        with pytest.raises(UsageError, match="'9999'") as caught:
            Registry.open(house.project)
        assert caught.value.exit_code == 2
        assert "upgrade" in caught.value.hint
    finally:
        with house.registry.database.write() as connection:
            connection.execute(
                sqlalchemy.text("UPDATE alembic_version SET version_num = :head"),
                {"head": REVISIONS[-1]},
            )


def test_two_first_openings_at_once_make_one_registry(tmp_path):
    """Both succeed; the schema is made once."""
    project = ProjectSettings(root=tmp_path)
    errors: list[MlguardError] = []

    def create() -> None:
        try:
            Registry.open(project).close()
        except MlguardError as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Registry.open(project) as registry:
        assert registry.verify_chain() is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://host/name", "mysql is not supported"),
        ("nonsense", "not a database URL"),
    ],
)
def test_urls_that_cannot_hold_a_registry(url, said):
    """Each says what to write instead."""
    with pytest.raises(ConfigError, match=said) as caught:
        Database(url)
    assert caught.value.exit_code == 2
    assert "sqlite" in caught.value.hint.lower()


def test_passwords_are_not_shown():
    """Neither in messages nor in representations."""
    pytest.importorskip("psycopg")
    shown = Database("postgresql+psycopg://me:secret@localhost:1/db").shown
    assert "secret" not in shown
    assert "localhost" in shown


def test_a_server_that_is_not_there_is_a_registry_error():
    """Exit 3, retryable; what fails static goes on."""
    pytest.importorskip("psycopg")
    unreachable = Database("postgresql+psycopg://me:secret@127.0.0.1:1/db")
    with pytest.raises(RegistryError, match="failed") as caught:
        unreachable.prepare()
    assert caught.value.retryable
    assert "secret" not in str(caught.value)


def test_network_file_systems_are_refused(tmp_path, monkeypatch):
    """WAL needs shared memory, which they do not have."""
    monkeypatch.setattr(database, "file_system", lambda path: "nfs4")
    with pytest.raises(ConfigError, match="nfs4") as caught:
        Registry.open(ProjectSettings(root=tmp_path))
    assert "postgresql" in caught.value.hint
    assert not (tmp_path / ".mlguard" / "registry.db").exists()


def test_the_file_system_of_a_path_is_found(tmp_path):
    """The longest mount point that holds it counts."""
    assert database.file_system(tmp_path)
    assert database.file_system(tmp_path) not in database.NETWORK_FILE_SYSTEMS


def test_waiting_for_another_writer_is_bounded(sqlite_house, monkeypatch):
    """A stuck writer is an error after the busy time, and no harm afterwards (fault 11)."""
    url = f"sqlite:///{sqlite_house.registry.database.path}"
    impatient = Database(url, busy_s=0.2)
    other = sqlite3.connect(impatient.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(RegistryError, match=r"busy for 0\.2 s") as caught, impatient.write():
        pass
    assert time.monotonic() - started < 5
    assert caught.value.data["clause"] == "busy"
    # Readers are not disturbed by a writer.
    assert sqlite_house.registry.app("iris").generation == 0
    other.execute("ROLLBACK")
    other.close()
    with impatient.write() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
    impatient.close()


def test_a_registry_that_was_moved_away_is_an_error_not_an_empty_one(sqlite_house):
    """Neither reads nor writes go to the unlinked file (fault 12)."""
    sqlite_house.deploy("one")
    path = sqlite_house.registry.database.path
    moved = path.with_suffix(".moved")
    sqlite_house.registry.close()
    assert sqlite_house.active() == "v1"
    path.rename(moved)
    for _ in range(2):
        with pytest.raises(RegistryError, match="failed"):
            sqlite_house.registry.app("iris")
        with pytest.raises(RegistryError):
            sqlite_house.registry.reserve_ids("iris", 1, 1, "s")
    assert not path.exists()
    moved.rename(path)
    assert sqlite_house.active() == "v1"


def test_a_lost_registry_is_not_made_anew_beside_what_it_left(sqlite_house):
    """With artifacts or logs beside it, a missing file is an error; without, a new project."""
    sqlite_house.deploy("one")
    project, path = sqlite_house.project, sqlite_house.registry.database.path
    sqlite_house.registry.close()
    kept = path.read_bytes()
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    with pytest.raises(RegistryError, match=r"is missing, but .*artifacts") as caught:
        Registry.open(project)
    assert "move" in caught.value.hint
    assert caught.value.data["clause"] == "missing"
    assert not path.exists()
    path.write_bytes(kept)
    Registry.open(project).close()
    path.unlink()
    Path(project.artifacts_url).rename(path.parent / "aside")
    Registry.open(project).close()
    assert path.exists()


def test_a_file_that_is_no_database_is_a_registry_error(tmp_path):
    """It is named, and left as it is."""
    file = tmp_path / ".mlguard" / "registry.db"
    file.parent.mkdir()
    file.write_text("this is no database, but it is long enough to look like a file of one" * 20)
    before = file.read_bytes()
    with pytest.raises(RegistryError, match=r"registry\.db"):
        Registry.open(ProjectSettings(root=tmp_path))
    assert file.read_bytes() == before


def test_a_read_only_registry_can_be_read(sqlite_house):
    """Reading goes on; a command is a registry error (fault 12)."""
    sqlite_house.deploy("one")
    registry = sqlite_house.registry
    with registry.database.read() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    assert sqlite_house.active() == "v1"
    with pytest.raises(RegistryError, match="readonly"):
        registry.hold("iris", "why")
    with registry.database.read() as connection:
        connection.exec_driver_sql("PRAGMA query_only=OFF")


def test_a_full_disk_fails_cleanly(sqlite_house):
    """The commit is refused, nothing is changed, and space makes it work again (fault 10)."""
    sqlite_house.deploy("one")
    registry = sqlite_house.registry
    registry.close()
    with registry.database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    before = sqlite_house.facts()

    def fill() -> None:
        for _ in range(200):
            registry.record_monitor_result("iris", _long_result())

    with pytest.raises(RegistryError, match="disk") as caught:
        fill()
    assert caught.value.data["clause"] == "full"
    assert sqlite_house.facts() == before
    with registry.database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    registry.hold("iris", "there is space again")


def _long_result():
    from mlguard.results import MonitorResult, Verdict

    return MonitorResult(id="a.b", verdict=Verdict.PASSED, summary="x" * 20000)


def test_polling_what_serves_is_cheap(sqlite_house):
    """Servers ask twice a second: a fraction of a millisecond of CPU each."""
    sqlite_house.deploy("one")
    sqlite_house.active()
    started = time.process_time()
    for _ in range(200):
        sqlite_house.registry.app("iris")
    assert (time.process_time() - started) / 200 < 0.002
