"""The schema of the registry, as SQLAlchemy Core tables.

What the database itself holds fast, whatever the code above it does: a name belongs to one
content, an app has at most one active version, at most one candidate and at most one
operation, a generation is made by one event, the audit chain has no two links at one place.

Documents are JSON in text columns (written strictly, keys sorted), so that the same bytes are
hashed and compared on every database.  Times are double precision seconds since the epoch.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

#: Revisions of the schema, oldest first; the last is the one this code speaks.
REVISIONS = ("0001", "0002", "0003", "0004")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ACTIVE = text("state IN ('BAKING', 'LIVE')")
_CANDIDATE = text("state IN ('STAGED', 'SHADOW', 'CANARY')")


def _app() -> Column[str]:
    return Column("app", String(64), ForeignKey("apps.app"), nullable=False)


#: Facts about the registry itself: ``id`` (a random name of this installation).
meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

#: Numbers that only grow; a row is locked while its number is taken.
counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

#: The pointer of each app, and the fence of its operations.
apps = Table(
    "apps",
    metadata,
    Column("app", String(64), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("active", Integer),
    Column("since", Double),
    Column("reason", Text, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("launched", Boolean, nullable=False),
    CheckConstraint(
        "active IS NOT NULL OR mode = 'DEFAULT_OUTPUT' OR generation = 0", name="pointer"
    ),
)

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    _app(),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("manifest", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_at", Double, nullable=False),
    Column("registered_at", Double, nullable=False),
    Column("registered_by", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("activated_at", Double),
    Column("activated_seq", Integer),
    Column("confirmed_at", Double),
    Column("confirmed_seq", Integer),
    Column("baked_s", Double, nullable=False),
    Column("incident", Integer),
    UniqueConstraint("app", "name"),
    Index(None, "app", "digest"),
    Index("one_active_version", "app", unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index(
        "one_candidate", "app", unique=True, sqlite_where=_CANDIDATE, postgresql_where=_CANDIDATE
    ),
)

#: The operation in progress of each app: at most one.
operations = Table(
    "operations",
    metadata,
    Column("app", String(64), ForeignKey("apps.app"), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("key", Text),
    Column("version_id", Integer, ForeignKey("versions.id"), nullable=False),
    Column("expected_generation", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("beat_at", Double, nullable=False),
    Column("supersede", Boolean, nullable=False),
    Column("resolves", Integer),
    Column("policy_digest", Text),
    Column("evidence_max_age", Double, nullable=False),
    #: What it goes through before it answers everybody, as JSON; NULL: nothing.
    Column("steps", Text),
    #: Place in ``steps`` of the one that it is at; NULL before the first.
    Column("step", Integer),
    Column("step_at", Double),
)

#: What finished commands came to, by idempotency key and by operation.
outcomes = Table(
    "outcomes",
    metadata,
    Column("id", Integer, primary_key=True),
    _app(),
    Column("operation", String(64), unique=True),
    Column("key", Text),
    Column("kind", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("at", Double, nullable=False),
    UniqueConstraint("app", "key"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", Integer, primary_key=True),
    _app(),
    Column("digest", String(64), nullable=False),
    Column("allowed", Boolean, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("decision", Text, nullable=False),
    Column("policy_digest", Text, nullable=False),
    Column("data_digest", Text, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Index(None, "app", "digest"),
)

#: Profile and statistics of the data that some bytes were accepted on.
reference_profiles = Table(
    "reference_profiles",
    metadata,
    Column("app", String(64), ForeignKey("apps.app"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("profile", Text, nullable=False),
    Column("at", Double, nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Integer, primary_key=True),
    _app(),
    Column("monitor", Text, nullable=False),
    Column("version_id", Integer),
    Column("generation", Integer, nullable=False),
    Column("summary", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("level", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cause", Text, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Index(None, "app", "state"),
)

holds = Table(
    "holds",
    metadata,
    Column("id", Integer, primary_key=True),
    _app(),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires", Double),
    Column("incident", Integer),
    Column("after_move", Boolean, nullable=False),
    Column("lifted_at", Double),
    #: Whether it keeps mail back, too.
    Column("mute", Boolean, nullable=False, server_default=false()),
    Index(None, "app", "lifted_at"),
)

quarantines = Table(
    "quarantines",
    metadata,
    Column("app", String(64), ForeignKey("apps.app"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("incident", Integer),
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
)

#: Promises to mend a finding by a date: check × subject × content.
waivers = Table(
    "waivers",
    metadata,
    Column("id", Integer, primary_key=True),
    _app(),
    Column("check_id", Text, nullable=False),
    #: NULL: every subject of the check.
    Column("subject", Text),
    #: NULL: whatever the content.
    Column("digest", String(64)),
    Column("owner", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ticket", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("revoked_at", Double),
    Index(None, "app"),
)

#: What happened without a human: the budget is counted here.
automatic_moves = Table(
    "automatic_moves",
    metadata,
    Column("app", String(64), ForeignKey("apps.app"), primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("at", Double, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("app", String(64), nullable=False),
    Column("generation", Integer, nullable=False),
    #: The generation that this event made; NULL where it made none.
    Column("moved_to", Integer),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    UniqueConstraint("app", "moved_to"),
    Index(None, "app", "seq"),
)

#: The last link of the chain (one row), and the largest time that was ever seen.
chain = Table(
    "chain",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("latest_at", Double, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("app", String(64), nullable=False),
    Column("kind", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("incident", Integer),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("next_at", Double, nullable=False),
    Column("lease_until", Double),
    Column("settled_at", Double),
    Column("error", Text, nullable=False),
    #: Message-ID of the message it was sent in, or may have been; NULL: of none.
    Column("told_in", Text),
    Index(None, "state", "id"),
    Index(None, "incident", "recipient"),
    sqlite_autoincrement=True,
)

servers = Table(
    "servers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("url", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("beat_at", Double, nullable=False),
    Column("observed", Text, nullable=False),
    Column("loaded", Text, nullable=False),
    Column("failed", Text, nullable=False),
)

id_blocks = Table(
    "id_blocks",
    metadata,
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("app", String(64), nullable=False),
    Column("version_id", Integer),
    Column("generation", Integer, nullable=False),
    Column("server_id", Text, nullable=False),
    Column("at", Double, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("ttl_s", Double, nullable=False),
    Column("beat_at", Double, nullable=False),
)

monitor_states = Table(
    "monitor_states",
    metadata,
    Column("app", String(64), primary_key=True),
    Column("version_id", Integer, primary_key=True, autoincrement=False),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("monitor", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("at", Double, nullable=False),
)

monitor_results = Table(
    "monitor_results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("app", String(64), nullable=False),
    Column("family", Text, nullable=False),
    Column("check_id", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("document", Text, nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "app", "at"),
)
