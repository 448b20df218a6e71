"""Processes that answer: heartbeats, blocks of query ids, and who leads.

A server row is a lease: one whose process is gone, or that is silent for half a minute, is not
waited for.  Query ids are handed out in blocks, one block for one version in one generation,
so that a prediction's version is known from its id alone, even if its own row was lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from mlguard.errors import RegistryError
from mlguard.registry.apps import Apps
from mlguard.registry.database import to_text
from mlguard.registry.liveness import expired, this_process
from mlguard.registry.records import IdBlock, Server
from mlguard.registry.tables import counters, id_blocks, leases, servers

#: Seconds after which a server that nobody has seen end is forgotten.
SILENT_S = 3600.0
#: Query ids stay below this, so that every JSON reader holds them exactly.
ID_LIMIT = 2**53


def _server_of(row: Row[Any]) -> Server:
    return Server(
        id=row.id,
        host=row.host,
        pid=row.pid,
        url=row.url,
        started_at=row.started_at,
        beat_at=row.beat_at,
        observed=json.loads(row.observed),
        loaded=tuple(json.loads(row.loaded)),
        failed={int(key): why for key, why in json.loads(row.failed).items()},
    )


class Servers(Apps):
    """Servers, query ids and leader leases."""

    # --- servers -------------------------------------------------------------------------

    def server_hello(self, server_id: str, *, host: str, pid: int, url: str) -> None:
        """Announce a server; it is alive from now on.

        Parameters
        ----------
        server_id : str
            Unique name of the process.
        host, pid, url
            Where it runs and where it answers.
        """
        now = self.clock()
        with self.database.write() as connection:
            self.database.put(
                connection,
                servers,
                {
                    "id": server_id,
                    "host": host,
                    "pid": pid,
                    "url": url,
                    "owner": this_process().to_text(),
                    "started_at": now,
                    "beat_at": now,
                    "observed": "{}",
                    "loaded": "[]",
                    "failed": "{}",
                },
            )

    def server_beat(
        self,
        server_id: str,
        *,
        observed: Mapping[str, int],
        loaded: Iterable[int],
        failed: Mapping[int, str],
    ) -> bool:
        """Give a sign of life and say what this server holds.

        Parameters
        ----------
        server_id : str
            As in :meth:`server_hello`.
        observed : mapping
            App -> generation that it serves.
        loaded : iterable of int
            Ids of the versions that are loaded and warm.
        failed : mapping
            Id of a version that could not be loaded -> why.

        Returns
        -------
        bool
            False where the registry has forgotten the server (it was silent for too long):
            say hello again.
        """
        with self.database.write() as connection:
            found = connection.execute(
                update(servers)
                .where(servers.c.id == server_id)
                .values(
                    beat_at=self.clock(),
                    observed=to_text(dict(observed)),
                    loaded=to_text(sorted(loaded)),
                    failed=to_text({str(key): why for key, why in failed.items()}),
                )
            )
            return bool(found.rowcount)

    def server_bye(self, server_id: str) -> None:
        """Say that a server stops; nobody waits for it any more."""
        with self.database.write() as connection:
            connection.execute(delete(servers).where(servers.c.id == server_id))

    def live_servers(self) -> list[Server]:
        """Return the servers that are alive, oldest first."""
        with self.database.read() as connection:
            return self._live(connection)

    def silent_servers(self) -> list[Server]:
        """Return the servers that were not heard of for a lease, and were not seen to end.

        Nobody waits for them, and after an hour they are forgotten; until then they may be cut
        off from the registry and go on answering with what they last knew.
        """
        now = self.clock()
        with self.database.read() as connection:
            rows = connection.execute(select(servers).order_by(servers.c.started_at, servers.c.id))
            return [
                _server_of(row)
                for row in rows
                if expired(row.owner, row.beat_at, now)
                and not expired(row.owner, row.beat_at, now, SILENT_S)
            ]

    def _live(self, connection: Connection) -> list[Server]:
        now = self.clock()
        rows = connection.execute(select(servers).order_by(servers.c.started_at, servers.c.id))
        return [_server_of(row) for row in rows if not expired(row.owner, row.beat_at, now)]

    def _forget_dead_servers(self) -> list[str]:
        with self.database.read() as connection:
            if not self._dead_servers(connection):
                return []
        with self.database.write() as connection:
            dead = self._dead_servers(connection)
            connection.execute(delete(servers).where(servers.c.id.in_(dead)))
        return [f"server {name} is gone" for name in sorted(dead)]

    def _dead_servers(self, connection: Connection) -> set[str]:
        now = self.clock()
        rows = connection.execute(select(servers.c.id, servers.c.owner, servers.c.beat_at))
        return {row.id for row in rows if expired(row.owner, row.beat_at, now, SILENT_S)}

    # --- query ids -----------------------------------------------------------------------

    def reserve_ids(
        self,
        app: str,
        version_id: int | None,
        generation: int,
        server_id: str,
        size: int = 65536,
    ) -> range:
        """Reserve query ids for the answers of one version in one generation.

        Parameters
        ----------
        app : str
            The app.
        version_id : int or None
            Who answers; None: nobody, default outputs.
        generation : int
            The generation in which it answers.
        server_id : str
            Whose block it is.
        size : int
            How many ids, at least 1.

        Returns
        -------
        range
            Ids from 1 up, below 2**53, each given out once; blocks follow one another without
            a gap.
        """
        with self.database.write() as connection:
            first = connection.execute(
                select(counters.c.value).where(counters.c.name == "query_id").with_for_update()
            ).scalar_one()
            if first + size > ID_LIMIT:
                raise RegistryError("all query ids below 2**53 are used")
            connection.execute(
                update(counters).where(counters.c.name == "query_id").values(value=first + size)
            )
            connection.execute(
                insert(id_blocks).values(
                    first=first,
                    size=size,
                    app=app,
                    version_id=version_id,
                    generation=generation,
                    server_id=server_id,
                    at=self.clock(),
                )
            )
        return range(first, first + size)

    def id_block(self, query_id: int) -> IdBlock | None:
        """Return the block that a query id was given out in; None if it never was."""
        if not 0 < query_id < ID_LIMIT:
            return None
        query = (
            select(id_blocks)
            .where(id_blocks.c.first <= query_id)
            .order_by(id_blocks.c.first.desc())
            .limit(1)
        )
        with self.database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or query_id >= row.first + row.size:
            return None
        return IdBlock(
            app=row.app,
            version_id=row.version_id,
            generation=row.generation,
            first=row.first,
            size=row.size,
            server_id=row.server_id,
        )

    # --- leader leases -------------------------------------------------------------------

    def lease(self, name: str, owner: str, ttl_s: float) -> bool:
        """Take or keep a lease, for work that one process does for all.

        Parameters
        ----------
        name : str
            The work, e.g. ``"monitors"``.
        owner : str
            Who asks, e.g. a server id.
        ttl_s : float
            Seconds that it lasts without another call.

        Returns
        -------
        bool
            Whether it is the owner's now.  Two may believe so for a moment when a clock jumps:
            what is done under a lease must bear being done twice.
        """
        with self.database.write() as connection:
            now = self.clock()
            mine = {
                "name": name,
                "holder": owner,
                "owner": this_process().to_text(),
                "ttl_s": ttl_s,
                "beat_at": now,
            }
            row = None
            # Its holder may give it up between the two questions: then it is free to be taken.
            while row is None:
                if self.database.insert_new(connection, leases, mine):
                    return True
                row = connection.execute(
                    select(leases).where(leases.c.name == name).with_for_update()
                ).one_or_none()
            if row.holder != owner and not expired(row.owner, row.beat_at, now, row.ttl_s):
                return False
            connection.execute(update(leases).where(leases.c.name == name).values(**mine))
            return True

    def give_up_lease(self, name: str, owner: str) -> None:
        """End a lease that is the owner's, so that nobody waits for it."""
        with self.database.write() as connection:
            connection.execute(
                delete(leases).where(leases.c.name == name, leases.c.holder == owner)
            )
