"""Waivers: who promised to mend what by when, kept and audited.

A waiver is written once; afterwards only its early end (`revoked_at`) is.  Extending one is a
new waiver with a reason of its own.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from mlguard.errors import NotFoundError, UsageError
from mlguard.registry.database import new_id
from mlguard.registry.incidents import Incidents
from mlguard.registry.tables import versions, waivers
from mlguard.registry.waiver_book import book_of, serving_book, waiver_of
from mlguard.waivers import MAX_WAIVER_S, Waiver, WaiverBook, scope_of
from mlguard.wording import duration, moment

#: Two commands that ask for the same within so many seconds are one that was typed again.
REPEATED_S = 60.0
_LONGEST_TEXT = 1000


class Waivers(Incidents):
    """The waivers of the apps."""

    def waiver_book(self, app: str) -> WaiverBook:
        """Return all waivers of an app, ended ones too, and the time to hold them against."""
        with self.database.read() as connection:
            return book_of(connection, app, self.clock())

    def serving_waivers(self, app: str) -> WaiverBook:
        """Return the waivers that the gate needed to let what serves through."""
        with self.database.read() as connection:
            return serving_book(connection, app, self.clock())

    def waive(
        self,
        app: str,
        check: str,
        *,
        subject: str | None = None,
        digest: str | None = None,
        owner: str,
        reason: str,
        ticket: str = "",
        expires: float,
    ) -> Waiver:
        """Let a finding close no gate until a date.

        Parameters
        ----------
        app : str
            Whose finding.
        check : str
            ``family.name``, or ``family.name[subject]``.
        subject : str, optional
            The subject, where it does not stand in ``check``; None: every subject.
        digest : str, optional
            Content of the one version it is for; None: any.
        owner, reason : str
            Who answers for it, and why it is acceptable until then.
        ticket : str
            Where the work on it is tracked.
        expires : float
            When it ends, in seconds since the epoch.

        Returns
        -------
        Waiver
            The one in force, where the same was asked for less than a minute ago.

        Raises
        ------
        UsageError
            If the check cannot be waived, nobody answers for it, no reason is given, or its
            end is past or too far away.
        """
        try:
            check, subject = scope_of(check, subject)
        except ValueError as error:
            raise UsageError(str(error), hint="copy the name from the gate's output") from error
        for what, text in (("an owner", owner), ("a reason", reason)):
            if not text.strip() or len(text) > _LONGEST_TEXT:
                raise UsageError(
                    f"a waiver needs {what} of 1 to {_LONGEST_TEXT} characters",
                    hint="who answers for it, and why is it acceptable until then?",
                )
        with self.database.write() as connection:
            self._ensure_app(connection, app)
            generation = self._lock(connection, app)
            book = book_of(connection, app, self.clock())
            _refuse_length(expires, book.now)
            values = {
                "subject": subject,
                "digest": digest,
                "owner": owner,
                "reason": reason,
                "ticket": ticket,
            }
            for one in book.waivers:
                same = one.check == check and all(
                    getattr(one, key) == value for key, value in values.items()
                )
                if same and one.valid(book.now) and abs(one.expires - expires) <= REPEATED_S:
                    return one
            made = connection.execute(
                insert(waivers).values(
                    app=app,
                    check_id=check,
                    **values,
                    actor=self.actor,
                    created_at=self.clock(),
                    expires=expires,
                )
            )
            waiver = self._waiver(connection, app, new_id(made))
            self._event(
                connection,
                app,
                "waived",
                f"{waiver.name} until {moment(expires)}, owner {owner}: {reason}",
                generation=generation,
                version=self._name_of(connection, app, digest),
                detail={"waiver": waiver.id, "check": check, "expires": expires, **values},
            )
            return waiver

    def revoke_waiver(self, app: str, waiver_id: int, reason: str) -> Waiver:
        """End a waiver before its time; one that has ended stays as it is.

        Raises
        ------
        NotFoundError
            If the app has no waiver of that number.
        """
        with self.database.write() as connection:
            generation = self._lock(connection, app)
            book = book_of(connection, app, self.clock())
            waiver = self._waiver(connection, app, waiver_id)
            if not waiver.valid(book.now):
                return waiver
            connection.execute(
                update(waivers).where(waivers.c.id == waiver_id).values(revoked_at=book.now)
            )
            self._event(
                connection,
                app,
                "waiver_revoked",
                f"{waiver.name}, owner {waiver.owner}: {reason}",
                generation=generation,
                version=self._name_of(connection, app, waiver.digest),
                detail={"waiver": waiver.id, "check": waiver.check, "subject": waiver.subject},
            )
            return self._waiver(connection, app, waiver_id)

    @staticmethod
    def _waiver(connection: Connection, app: str, waiver_id: int) -> Waiver:
        row = connection.execute(
            select(waivers).where(waivers.c.app == app, waivers.c.id == waiver_id)
        ).one_or_none()
        if row is None:
            raise NotFoundError(
                f"{app} has no waiver {waiver_id}", hint=f"see: mlguard waive {app} --list"
            )
        return waiver_of(row)

    @staticmethod
    def _name_of(connection: Connection, app: str, digest: str | None) -> str:
        """Return the newest name of some content; empty where it is any or has none."""
        found = connection.execute(
            select(versions.c.name)
            .where(versions.c.app == app, versions.c.digest == digest)
            .order_by(versions.c.id.desc())
            .limit(1)
        ).scalar()
        return "" if digest is None or found is None else str(found)


def _refuse_length(expires: float, now: float) -> None:
    if expires <= now:
        raise UsageError(
            f"a waiver until {moment(expires)} would have ended already",
            hint='name a later date, or a length like "30d"',
        )
    if expires - now > MAX_WAIVER_S:
        raise UsageError(
            f"a waiver lasts {duration(MAX_WAIVER_S)} at most; {moment(expires)} is "
            f"{duration(expires - now)} away",
            hint="what is to stay as it is belongs into app.toml, where it is reviewed",
        )
