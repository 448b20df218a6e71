"""Waivers: a person's signed promise to mend a finding by a date, and what it lets through.

Pure: no clock, no database.  Whoever judges hands in the waivers and the time.

Rule 1: a waiver changes no verdict.  It says who answers for it, until when; only what follows
from a bad verdict (that it closes the gate) is suspended.

Rule 2: it covers what it names and nothing else: one check, one subject or all of them, one
model by its digest or any.  A result that blocks nothing needs no waiver and gets none.

Rule 3: what the gate says of itself (a run that died, a check that was lost) cannot be waived:
there is no finding that anybody could answer for.

Rule 4: it ends.  At the time written in it, by the largest time ever seen, so that a clock that
goes back prolongs nothing; or earlier, when somebody revokes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from mlguard.results import CheckResult
from mlguard.wording import ago, moment, printable, rfc3339

_DAY = 86400.0
#: Longest that a finding may be waived at once: a quarter.  What cannot be mended in one is no
#: exception any more but a decision, and belongs into app.toml, where it is reviewed.
MAX_WAIVER_S = 90 * _DAY
#: How long before its end a waiver is warned of: time enough to mend or to decide.
WARN_AHEAD_S = 7 * _DAY
#: Family of the results that the gate makes about its own run.
UNWAIVABLE = "gate"

State = Literal["active", "expiring", "expired", "revoked"]
_CHECK = re.compile(r"[\w-]+(?:\.[\w-]+)+")
_NOTE = "waiver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """One promise.

    Attributes
    ----------
    id : int
        Number, for people.
    app, check : str
        Whose finding, and of which check (``family.name``).
    subject : str or None
        Column, attribute or group; None: every subject of the check.
    digest : str or None
        Content of the one version it is about; None: of any.
    owner, reason, ticket : str
        Who answers for it, why it is acceptable for now, and where the work is tracked.
    actor : str
        Who wrote it down.
    created_at, expires : float
        When it begins and ends, in seconds since the epoch.
    revoked_at : float or None
        When somebody ended it early.
    """

    id: int
    app: str
    check: str
    subject: str | None
    digest: str | None
    owner: str
    reason: str
    ticket: str
    actor: str
    created_at: float
    expires: float
    revoked_at: float | None = None

    @property
    def name(self) -> str:
        """What it is about, as findings are named: ``family.name[subject]``."""
        return self.check if self.subject is None else f"{self.check}[{self.subject}]"

    @property
    def ended_at(self) -> float:
        """When it ends or ended."""
        return self.expires if self.revoked_at is None else min(self.revoked_at, self.expires)

    def state(self, now: float) -> State:
        """Return where it stands at a time."""
        if self.revoked_at is not None:
            return "revoked"
        if now >= self.expires:
            return "expired"
        return "expiring" if self.expires - now <= WARN_AHEAD_S else "active"

    def valid(self, now: float) -> bool:
        """Whether it lets anything through at a time."""
        return self.state(now) in ("active", "expiring")

    def covers(self, result: CheckResult, digest: str) -> bool:
        """Whether it is about this result of this content, whatever the time."""
        return (
            result.family != UNWAIVABLE
            and result.id == self.check
            and self.subject in (None, result.subject)
            and self.digest in (None, digest)
        )

    def says(self, now: float) -> str:
        """Return who waived it and until when, or since when no more, in a clause."""
        state = self.state(now)
        ticket = f", {self.ticket}" if self.ticket else ""
        if state == "expired":
            text = f"the waiver by {self.owner}{ticket} expired on {moment(self.expires)}"
        elif state == "revoked":
            text = f"the waiver by {self.owner}{ticket} was revoked on {moment(self.revoked_at)}"
        else:
            until = f"{moment(self.expires)} ({ago(self.expires, now)})"
            text = f"waived by {self.owner}{ticket} until {until}"
        return printable(text, 400)

    def to_json(self, now: float) -> dict[str, Any]:
        """Return it as JSON values, with where it stands at a time."""
        return {
            "id": self.id,
            "check": self.check,
            "subject": self.subject,
            "digest": self.digest,
            "owner": self.owner,
            "reason": self.reason,
            "ticket": self.ticket,
            "actor": self.actor,
            "created_at": rfc3339(self.created_at),
            "expires": rfc3339(self.expires),
            "revoked_at": None if self.revoked_at is None else rfc3339(self.revoked_at),
            "state": self.state(now),
            "says": self.says(now),
        }


@dataclass(frozen=True, slots=True)
class WaiverBook:
    """The waivers of one app at one time.

    Attributes
    ----------
    waivers : tuple of Waiver
        All of them, ended ones too: they explain why something blocks again.
    now : float
        The time they are held against, in seconds since the epoch.
    """

    waivers: tuple[Waiver, ...] = ()
    now: float = 0.0

    def about(self, result: CheckResult, digest: str) -> Waiver | None:
        """Return the waiver that speaks for a result, if one was ever given.

        The one that lasts longest; where none is valid, the one that ended last.
        """
        found = [one for one in self.waivers if one.covers(result, digest)]
        return max(found, key=lambda one: (one.valid(self.now), one.ended_at, one.id), default=None)

    def apply(self, result: CheckResult, digest: str) -> CheckResult:
        """Return a result with the waiver that is valid now, and no other.

        Parameters
        ----------
        result : CheckResult
            What a check found; what it says of waivers itself is dropped.
        digest : str
            Content of the candidate; empty where it is not known, which only a waiver for any
            content covers.

        Returns
        -------
        CheckResult
            With ``waived_by``, and the waiver in ``details``, where it would block and is
            covered.  With the waiver in ``details`` alone where it was covered once: then it
            blocks, and :func:`waiver_words` says since when.
        """
        bare = _bare(result)
        waiver = self.about(bare, digest) if bare.blocks else None
        if waiver is None:
            return bare
        return replace(
            bare,
            waived_by=waiver.owner if waiver.valid(self.now) else None,
            details={**bare.details, _NOTE: waiver.to_json(self.now)},
        )

    def leaned_on(self, results: Iterable[CheckResult], digest: str) -> tuple[Waiver, ...]:
        """Return the waivers, valid or ended, that some results need to close no gate."""
        needed = [
            waiver
            for one in map(_bare, results)
            if one.blocks and (waiver := self.about(one, digest)) is not None
        ]
        return tuple(sorted(set(needed), key=lambda one: (one.ended_at, one.id)))


def _bare(result: CheckResult) -> CheckResult:
    if result.waived_by is None and _NOTE not in result.details:
        return result
    details = {key: value for key, value in result.details.items() if key != _NOTE}
    return replace(result, waived_by=None, details=details)


def waiver_note(result: CheckResult) -> dict[str, Any] | None:
    """Return what :meth:`WaiverBook.apply` left in a result, if anything."""
    note = result.details.get(_NOTE)
    return note if isinstance(note, dict) else None


def waiver_words(result: CheckResult) -> str:
    """Say who waived a result and until when, or that it blocks again; empty where nobody did."""
    note = waiver_note(result)
    if note is None:
        return "" if result.waived_by is None else f"waived by {result.waived_by}"
    return str(note["says"])


def scope_of(name: str, subject: str | None) -> tuple[str, str | None]:
    """Return check and subject of a name as findings write it: ``family.name[subject]``.

    Parameters
    ----------
    name : str
        ``family.name``, or with its subject in brackets.
    subject : str or None
        The subject where it is given apart.

    Raises
    ------
    ValueError
        If it is no name of a check, names two subjects, or names what the gate says of itself.
    """
    check, bracket, rest = name.partition("[")
    if not _CHECK.fullmatch(check) or (bracket and not rest.endswith("]")):
        raise ValueError(f"{name!r} is no name of a check; they are written family.name[subject]")
    named = rest.removesuffix("]") if bracket else None
    if named is not None and subject not in (None, named):
        raise ValueError(f"{name!r} names another subject than {subject!r}")
    if check.partition(".")[0] == UNWAIVABLE:
        raise ValueError(f"{check} is about the run of the gate itself, which nobody can waive")
    return check, named if named is not None else subject
