"""Facts into words: what a person is told about each kind of event.

A notice answers, in this order: what happened, what serves now, why (number, limit, interval,
n), what mlguard did, what you can do next.  Whoever decided may give any of these answers in
the facts (``happened``, ``serves``, ``why``, ``did``, ``next``); what is missing is said here.

Rules: a notice never holds a row of data; a group with fewer than :data:`SMALL_GROUP` rows is
named without its figures; passwords in addresses are struck out; text from outside is made
printable.  Sentences say what differs and by how much, never that something is fair or safe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from mlguard.results import Verdict
from mlguard.wording import (
    SMALL_GROUP,
    TOO_FEW_TO_SHOW,
    count,
    duration,
    estimate,
    moment,
    number,
    printable,
)

#: Rows of a table in a mail; the rest is counted.
TABLE_ROWS = 30
#: Waivers that a mail names; the rest is counted.
WAIVERS = 5
#: Characters of a day at the start of a moment.
_DAY = len("2026-11-22")
#: A word longer than this is cut: a path fits, 10 kB of one letter do not.
LONGEST_WORD = 160
#: Longest age that a subject line has room for.
_LONGEST_AGE = 12
_ENDLESS = re.compile(rf"(\S{{{LONGEST_WORD}}})\S+")

Tone = Literal["failed", "warned", "passed", "undecided"]

_SECRET = re.compile(r"(://[^\s:/@]+:)[^\s@/]+(@)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table of a notice: a verdict or a group's figure."""

    name: str
    estimate: str
    limit: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What one message says.

    Attributes
    ----------
    kind : str
        Kind of the facts, e.g. ``"rolled_back"``.
    state : str
        What stands in brackets in the subject: the part that changes within a thread.
    identity : str
        What stands behind it: the same for every message of a thread.
    headline, serves, why, did, next_step, command : str
        The five answers, and the command of the last alone.
    tone : str
        How bad it is, as a verdict's word; it chooses colour and shape.
    at : float or None
        When it happened (seconds, UTC).
    numbers : tuple of (str, str)
        The decisive number and what belongs to it, label and text.
    table_title : str
    table : tuple of Row
    more_rows : int
        Rows that did not fit.
    project, environment, app : str
    incident : int or None
    earlier : tuple of (float or None, str)
        When something happened and what: what the reader should have heard before.
    waived : tuple of str
        What serves in spite of a finding, by whose word and until when.
    sections : tuple of (str, tuple of str)
        What else is told: a title, and a line for each thing.
    """

    kind: str
    state: str
    identity: str
    headline: str
    serves: str
    why: str
    did: str
    next_step: str
    command: str
    tone: Tone
    at: float | None
    numbers: tuple[tuple[str, str], ...]
    table_title: str
    table: tuple[Row, ...]
    more_rows: int
    project: str
    environment: str
    app: str
    incident: int | None
    earlier: tuple[tuple[float | None, str], ...] = ()
    waived: tuple[str, ...] = ()
    sections: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def subject(self) -> str:
        """Subject line: the state in brackets, the identity outside.

        Gmail threads by subject and ignores what stands in brackets, so all that changes
        within an incident stands inside them and nothing that identifies it does.
        """
        return f"[{self.state}] {self.identity}"

    @property
    def label(self) -> str:
        """What kind of message it is, to stand above the headline."""
        words = {
            "rolled_back": "Rolled back",
            "alert": "Over its limit",
            "reminder": "Still open",
            "digest": "Daily digest",
            "test": "Test",
        }
        text = words.get(self.kind, self.kind.replace("_", " ").capitalize())
        return text if self.incident is None else f"{text} · incident {self.incident}"

    @property
    def mark(self) -> str:
        """Shape beside the headline, so that colour is never alone."""
        return {"failed": "✗", "warned": "!", "passed": "✓", "undecided": "?"}[self.tone]


def without_small_groups(value: Any) -> Any:
    """Return JSON-like facts with the figures of small groups taken out.

    A mapping that names a ``group`` and has ``n`` below :data:`SMALL_GROUP` loses every
    number but says why.
    """
    if isinstance(value, Mapping):
        n = value.get("n")
        if value.get("group") and isinstance(n, int | float) and n < SMALL_GROUP:
            return {
                "group": value["group"],
                "name": value.get("name", ""),
                "suppressed": TOO_FEW_TO_SHOW,
            }
        return {key: without_small_groups(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_small_groups(one) for one in value]
    return value


def without_secrets(value: Any) -> Any:
    """Return JSON-like facts with the passwords inside addresses struck out."""
    if isinstance(value, Mapping):
        return {str(key): without_secrets(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(one) for one in value]
    return _SECRET.sub(r"\1***\2", value) if isinstance(value, str) else value


class _Facts:
    """Facts of one event, read with care: any of them may be absent or strange."""

    def __init__(self, kind: str, facts: Mapping[str, Any]) -> None:
        self.kind = kind
        self.raw = facts
        self.app = self.text("app", 64)
        self.version = self._version("version") or self._version("from")
        self.source = self._version("from") or self.version
        self.target = self._version("to")
        self.check = self.text("check", 120) or self.text("monitor", 120)
        incident = facts.get("incident")
        self.incident = incident if isinstance(incident, int) else None
        self.generation = facts.get("generation")
        self.automatic = bool(facts.get("automatic", True))

    def text(self, key: str, limit: int = 600) -> str:
        """Return a fact as printable text, empty where it is absent."""
        value = self.raw.get(key)
        if not isinstance(value, str | int) or value == "":
            return ""
        # One endless word would push the answers below it off the screen.
        return _ENDLESS.sub(r"\1…", printable(value, limit))

    def _version(self, key: str) -> str:
        value = self.raw.get(key)
        if isinstance(value, Mapping):
            value = value.get("name") or value.get("version")
        return printable(value, 64) if isinstance(value, str) and value else ""

    @property
    def at(self) -> float | None:
        """When it happened: seconds, or RFC 3339 text."""
        value = self.raw.get("at")
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                return None
        return float(value) if isinstance(value, int | float) else None

    def figure(self, key: str) -> float | None:
        """Return a fact that is a number."""
        value = self.raw.get(key)
        return float(value) if isinstance(value, int | float) else None

    @property
    def interval(self) -> Sequence[float | None] | None:
        found = self.raw.get("interval")
        return found if isinstance(found, list | tuple) and len(found) == 2 else None

    @property
    def n(self) -> int | None:
        found = self.raw.get("n")
        return int(found) if isinstance(found, int | float) else None

    @property
    def measured(self) -> str:
        """The decisive number with interval and n, and its limit."""
        value = self.figure("value")
        if value is None:
            return ""
        text = estimate(value, self.interval, self.n)
        limit = self.figure("limit")
        return f"{text}; limit {number(limit)}" if limit is not None else text

    @property
    def serving(self) -> str:
        """What serves after the event, as a sentence."""
        generation = f", generation {self.generation}" if self.generation else ""
        if self.target:
            return f"{self.target} serves now{generation}."
        if self.version:
            return f"{self.version} keeps serving{generation}."
        return "What serves was not changed."


def _because(facts: _Facts) -> str:
    """Say why with the number: the words that were given have it, or get it."""
    said = facts.text("why", 1200) or facts.text("reason", 1200)
    measured = facts.measured
    if measured and not re.search(r"\d\.\d", said):
        said = f"{facts.check or 'measured'} on {facts.source or 'what serves'}: {measured}. {said}"
    return _sentence(said.strip() or (f"{facts.check} failed" if facts.check else ""))


def _rolled_back(facts: _Facts) -> dict[str, str]:
    source, target = facts.source or "the live version", facts.target or "the version before"
    after = (
        f"{source} is quarantined: the same bytes will not be deployed again. "
        f"New deploys of {facts.app} are held."
        if facts.automatic
        else f"{source} stays in the registry."
    )
    resolves = f" --resolves {facts.incident}" if facts.incident and facts.automatic else ""
    return {
        "state": f"ROLLED BACK {source} → {target}",
        "headline": f"{facts.app} was rolled back from {source} to {target}.",
        "did": f"mlguard switched all traffic from {source} to {target} in one step. {after}",
        "next": f"See what led to it{_incident_named(facts)}, fix {source}, then deploy the fix as "
        "a new version" + (" (it lifts the hold):" if resolves else ":"),
        "command": f"mlguard deploy {facts.app}{resolves}",
    }


def _incident_named(facts: _Facts) -> str:
    return "" if facts.incident is None else f" (mlguard incident {facts.incident})"


def _looked_at(facts: _Facts) -> str:
    """Return the command that tells most about what is wrong."""
    if facts.incident is None:
        return f"mlguard report {facts.app}"
    return f"mlguard incident {facts.incident}"


def _default_output(facts: _Facts) -> dict[str, str]:
    said = {
        "state": "DEFAULT OUTPUT",
        "headline": f"{facts.app} answers with its default output.",
        "serves": f"No model serves {facts.app}: every request gets the default output "
        "and says so.",
    }
    if not facts.automatic:
        return said | {
            "did": f"mlguard sends every request of {facts.app} the default output until "
            "somebody unblocks it.",
            "next": "To let the model answer again:",
            "command": f'mlguard unblock {facts.app} --reason "…"',
        }
    resolves = f" --resolves {facts.incident}" if facts.incident else ""
    return said | {
        "did": f"mlguard took {facts.source or 'the live version'} out of traffic; "
        "there was no version to go back to. New deploys are held.",
        "next": "A human is needed. See what happened, then deploy a version that passes:",
        "command": f"mlguard deploy {facts.app}{resolves}",
    }


def _frozen(facts: _Facts) -> dict[str, str]:
    return {
        "state": "FROZEN",
        "headline": f"New deploys of {facts.app} are held.",
        "did": "mlguard holds promotions; what serves was not changed, and a rollback stays "
        "possible.",
        "next": "See the evidence, then decide: roll back, or deploy a fix.",
        "command": _looked_at(facts),
    }


def _alert(facts: _Facts) -> dict[str, str]:
    version = f" on {facts.version}" if facts.version else ""
    return {
        "state": "FIRING",
        "headline": f"{facts.check} of {facts.app} is over its limit{version}."
        if facts.check
        else f"{facts.app} needs a look{version}.",
        "did": "mlguard opened an incident. No traffic was moved.",
        "next": "See what moved, and what is behind it:",
        "command": _looked_at(facts),
    }


def _cleared(facts: _Facts) -> dict[str, str]:
    if facts.target and facts.incident is not None:
        headline = f"{facts.target} resolves incident {facts.incident} of {facts.app}."
    elif facts.target:
        headline = f"{facts.app} answers with {facts.target} again."
    elif facts.incident is not None:
        about = f": {facts.check}" if facts.check else ""
        headline = f"Incident {facts.incident} of {facts.app} is over{about}."
    else:
        headline = f"{facts.check or 'What failed'} of {facts.app} is back within its limit."
    return {
        "state": "CLEARED",
        "headline": headline,
        "did": "mlguard closed the incident.",
        "next": "Nothing is needed. The history has the whole story:",
        "command": f"mlguard history {facts.app}",
    }


def _refused(facts: _Facts) -> dict[str, str]:
    candidate = facts.text("candidate", 64) or facts.version or facts.target or "A candidate"
    onward = facts.text("next")
    return {
        "state": "REFUSED",
        "headline": f"{candidate} was refused for {facts.app}.",
        "serves": f"{facts.text('active', 64)} keeps serving. Nothing was changed."
        if facts.text("active", 64)
        else "What serves was not changed.",
        "did": "mlguard kept the evidence and moved no traffic.",
        "next": "Start here:" if onward else "See which checks said no, with their numbers:",
        "command": onward if onward.startswith("mlguard ") else f"mlguard check {facts.app}",
        "why": re.sub(r"\Ablocked by ", "Blocked by ", _because(facts)),
    }


def _blind(facts: _Facts) -> dict[str, str]:
    return {
        "state": "BLIND",
        "headline": f"{facts.app} is not being watched: {facts.check or 'a monitor'} gives no "
        "verdict.",
        "did": "mlguard holds promotions until it can judge again; no traffic was moved.",
        "next": "See which monitor is blind and why:",
        "command": f"mlguard status {facts.app}",
    }


def _report(facts: _Facts) -> dict[str, str]:
    worst = facts.text("state", 40)
    return {
        "state": f"REPORT {worst}".strip(),
        "headline": f"Report of {facts.app}.",
        "next": "The whole report, with every feature:",
        "command": f"mlguard report {facts.app} --html report.html",
    }


def _reminder(facts: _Facts) -> dict[str, str]:
    opened = facts.figure("opened_at")
    age = "" if opened is None or facts.at is None else f" for {duration(facts.at - opened)}"
    about = f" ({facts.check})" if facts.check else ""
    return {
        "state": f"STILL OPEN{age.upper() if len(age) < _LONGEST_AGE else ''}",
        "headline": f"Incident {facts.incident} of {facts.app} has been open{age}{about}.",
        "did": "mlguard goes on watching. What it did about the incident was told before.",
        "next": "See what it is about, then deploy a fix or roll back:",
        "command": _looked_at(facts),
    }


def _digest(facts: _Facts) -> dict[str, str]:
    counted = facts.raw.get("counted")
    parts = [printable(one, 100) for one in counted] if isinstance(counted, list) else []
    events = facts.raw.get("events")
    if isinstance(events, list) and events:
        many = "message" if len(events) == 1 else "messages"
        parts.append(f"{count(len(events))} {many} above the daily cap")
    day = "" if facts.at is None else f" {moment(facts.at).partition(' ')[0]}"
    return {
        "state": "DIGEST",
        "headline": f"Since the last digest: {', '.join(parts) or 'nothing'}.",
        "serves": "",
        "why": facts.text("why") or "What could wait is told once a day.",
        "next": "See where every app stands:",
        "command": "mlguard status",
        "topic": f"digest of{day}" if day else "digest",
    }


def _test(facts: _Facts) -> dict[str, str]:
    return {
        "state": "TEST",
        "headline": "Mail from mlguard arrives.",
        "serves": "Nothing was changed.",
        "why": "Somebody asked for a test message.",
        "did": "mlguard sent this message, to this address only.",
        "next": "Nothing is needed. Where every app stands:",
        "command": f"mlguard status {facts.app}".strip(),
    }


def _any(facts: _Facts) -> dict[str, str]:
    what = printable(facts.kind, 64).replace("_", " ")
    return {
        "state": what.upper(),
        "headline": f"{facts.app}: {what}.",
        "did": "mlguard wrote it into the history.",
        "next": "See the history:",
        "command": f"mlguard history {facts.app}",
    }


_WORDS: dict[str, tuple[Tone, Callable[[_Facts], dict[str, str]]]] = {
    "rolled_back": ("failed", _rolled_back),
    "default_output": ("failed", _default_output),
    "frozen": ("warned", _frozen),
    "alert": ("warned", _alert),
    "cleared": ("passed", _cleared),
    "refused": ("failed", _refused),
    "blind": ("warned", _blind),
    "report": ("undecided", _report),
    "reminder": ("warned", _reminder),
    "digest": ("warned", _digest),
    "test": ("passed", _test),
}

#: Kinds of facts that have words of their own.
KINDS = tuple(_WORDS)


def notice(
    kind: str,
    facts: Mapping[str, Any],
    *,
    topic: str = "",
    earlier: Sequence[Notice] = (),
    together: Sequence[Notice] = (),
) -> Notice:
    """Put the facts of one event into words.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`; any other gets general words.
    facts : mapping
        JSON-compatible values; any may be absent.
    topic : str
        What the thread is about, e.g. the incident's monitor; default: the check.
    earlier : sequence of Notice
        What the reader should have heard before and did not, oldest first.
    together : sequence of Notice
        What else this message tells of, with threads of their own.

    Returns
    -------
    Notice
    """
    facts = without_small_groups(without_secrets(facts))
    known = _Facts(kind, facts)
    tone, words = _WORDS.get(kind, ("undecided", _any))
    said = dict.fromkeys(("did", "next", "command"), "")
    said |= {"serves": known.serving, "why": _because(known), **words(known)}
    said |= _given(known, said)
    if kind == "report" and facts.get("verdict") in ("failed", "warned", "passed"):
        tone = facts["verdict"]
    table, more = _table(facts)
    topic = topic or said.get("topic", "")
    others = "" if kind == "digest" or not together else f" AND {len(together)} MORE"
    return Notice(
        kind=printable(kind, 64),
        state=printable(f"{said['state']}{others}", 150).replace("[", "(").replace("]", ")"),
        identity=_identity(known, topic),
        headline=said["headline"],
        serves=said["serves"],
        why=said["why"],
        did=said["did"],
        next_step=said["next"],
        command=said["command"],
        tone=tone,
        at=known.at,
        numbers=_numbers(known),
        table_title=known.text("table_title", 120),
        table=table,
        more_rows=more,
        project=known.text("project", 64),
        environment=known.text("environment", 64),
        app=known.app,
        incident=known.incident,
        earlier=tuple((one.at, one.headline) for one in earlier),
        waived=_waived(facts),
        sections=(*_sections(facts), *_told(kind, together)),
    )


def _told(kind: str, together: Sequence[Notice]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Say in a section what other messages would have said."""
    if not together:
        return ()
    title = "Not sent one by one" if kind == "digest" else "At the same time"
    lines = []
    for one in together[:TABLE_ROWS]:
        when = f"{moment(one.at)}  " if kind == "digest" and one.at is not None else ""
        number = "" if one.incident is None else f" (incident {one.incident})"
        lines.append(f"{when}{one.mark} {one.headline.rstrip('.')}{number}.")
    more = len(together) - TABLE_ROWS
    if more > 0:
        lines.append(f"and {more} more: mlguard outbox")
    return ((title, tuple(lines)),)


def _sections(facts: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Read what else the facts tell: a title and its lines each."""
    found = []
    for one in facts.get("sections") or ():
        if isinstance(one, Mapping) and isinstance(one.get("lines"), list | tuple):
            lines = [printable(line, 400) for line in one["lines"]]
            more = len(lines) - TABLE_ROWS
            shown = (*lines[:TABLE_ROWS], f"and {more} more") if more > 0 else tuple(lines)
            found.append((printable(one.get("title", ""), 120), shown))
    return tuple(found)


def _given(facts: _Facts, own: Mapping[str, str]) -> dict[str, str]:
    """Return the answers that the facts give themselves.

    Whoever decides says ``did`` in a clause and ``next`` as a command, for the audit trail and
    the terminal; where this module has a whole sentence for the kind, the sentence is better.
    """
    given = {
        "headline": facts.text("happened", 1200),
        "serves": _sentence(facts.text("serves", 1200)),
        "command": facts.text("command", 400),
    }
    did, onward = facts.text("did", 1200), facts.text("next", 1200)
    if did[:1].isupper() or did.startswith("mlguard ") or not own.get("did"):
        named = did.startswith("mlguard ") or not did[:1].islower()
        given["did"] = _sentence(did if named else f"mlguard {did}")
    if onward.startswith("mlguard "):
        if not own.get("command"):
            given["command"] = given["command"] or onward
    elif onward:
        given["next"] = onward
    found = {key: text for key, text in given.items() if text}
    # The command of our own words does not belong to somebody else's.
    return found if "next" not in found else {"command": "", **found}


def _waived(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what was waived in what serves, as it stood when the facts were written."""
    found = _mappings(facts.get("waivers") or ())
    lines = []
    for one in found[:WAIVERS]:
        subject = f"[{one['subject']}]" if one.get("subject") else ""
        lines.append(printable(f"{one.get('check', '')}{subject}: {one.get('says', '')}.", 300))
    more = len(found) - WAIVERS
    return (*lines, f"and {more} more") if more > 0 else tuple(lines)


def _sentence(text: str) -> str:
    return text if not text or text.endswith((".", "!", "?", "…", ":")) else f"{text}."


def _identity(facts: _Facts, topic: str) -> str:
    place = " ".join(part for part in ("mlguard", facts.text("environment", 64), facts.app) if part)
    about = printable(topic, 100) or facts.text("topic", 100) or facts.check
    if not about and facts.source:
        about = facts.source
    parts = [about] if about else []
    if facts.incident is not None:
        parts.append(f"incident {facts.incident}")
    text = f"{place}: {', '.join(parts)}" if parts else place
    return text.replace("[", "(").replace("]", ")")


def _numbers(facts: _Facts) -> tuple[tuple[str, str], ...]:
    rows = [("Check", facts.check)]
    if facts.figure("value") is not None:
        rows.append(("Value", estimate(facts.figure("value"), facts.interval, facts.n)))
    if facts.figure("limit") is not None:
        rows.append(("Limit", number(facts.figure("limit"))))
    rows += [
        ("Window", _window(facts)),
        ("Generation", str(facts.generation or "")),
        ("Behind it", facts.text("explained", 600)),
        ("Cause", facts.text("cause", 200)),
        ("By", facts.text("actor", 200)),
    ]
    return tuple((label, text) for label, text in rows if text)


def _window(facts: _Facts) -> str:
    window = facts.raw.get("window")
    if not isinstance(window, Mapping):
        return facts.text("window")
    start, end = window.get("start"), window.get("end")
    if not (isinstance(start, int | float) and isinstance(end, int | float)):
        return ""
    first, last = moment(start), moment(end)
    if first != last and first[:_DAY] == last[:_DAY]:
        first, last = first.removesuffix(" UTC"), last[_DAY:].strip()
    text = first if first == last else f"{first} to {last}"
    for key, what in (("n_rows", "predictions"), ("n_labels", "labels")):
        if isinstance(window.get(key), int):
            text += f", {count(window[key])} {what}"
    return text


def _table(facts: Mapping[str, Any]) -> tuple[tuple[Row, ...], int]:
    """Rows of judged figures, or of measurements per group, whichever the facts hold."""
    found = facts.get("figures") or facts.get("measurements") or []
    # The order of measurements is their monitor's, worst first.
    rows = [_row(one) for one in sorted(_mappings(found), key=_badness)]
    left_out = facts.get("more_figures")
    more = left_out if isinstance(left_out, int) else 0
    return tuple(rows[:TABLE_ROWS]), more + max(0, len(rows) - TABLE_ROWS)


def _mappings(found: Any) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, Mapping)]


def _badness(one: Mapping[str, Any]) -> tuple[int, float]:
    """Order judged figures: the worst verdict first, then what is furthest on its way."""
    verdict, value, limit = one.get("verdict"), one.get("value"), one.get("limit")
    if verdict not in tuple(Verdict):
        return 0, 0.0
    excess = 0.0
    if isinstance(value, int | float) and isinstance(limit, int | float) and limit:
        excess = value / limit
    return -Verdict(verdict).severity, -excess if math.isfinite(excess) else 0.0


def _row(one: Mapping[str, Any]) -> Row:
    name = printable(one.get("name") or one.get("id") or "", 120)
    subject = printable(one.get("subject") or one.get("group") or "", 120)
    if subject:
        name = f"{name} {subject}".strip()
    if one.get("suppressed"):
        return Row(name=name, estimate=str(one["suppressed"]))
    interval = one.get("interval") or (one.get("low"), one.get("high"))
    value, n, limit = one.get("value"), one.get("n"), one.get("limit")
    verdict = one.get("verdict")
    return Row(
        name=name,
        estimate=estimate(value, interval, n) if isinstance(value, int | float) else "no estimate",
        limit=number(limit) if isinstance(limit, int | float) else "",
        verdict=Verdict(verdict) if verdict in tuple(Verdict) else None,
    )
