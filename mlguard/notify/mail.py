"""A notice as an e-mail that every mail program can read.

Structure::

    multipart/mixed
    ├── multipart/alternative
    │   ├── text/plain                 complete in itself
    │   └── multipart/related
    │       ├── text/html              under 100 kB, inline CSS, nothing remote, no script
    │       └── image/png …            at most six of 100 kB, by Content-ID
    └── drift.json                     the facts, at most 256 kB

Rules: a header never holds a line break (``EmailMessage`` refuses them, and what comes from
outside is made printable first); every text is escaped; replies of machines are not invited
(``Auto-Submitted``, ``X-Auto-Response-Suppress``); a thread is held together by Message-ID,
In-Reply-To and References, and by a subject whose part outside brackets never changes.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlguard.errors import UsageError
from mlguard.notify.notice import Notice, without_secrets, without_small_groups
from mlguard.results import finite_or_none
from mlguard.wording import ago, duration, inert, moment, printable

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

WIDTH = 72
MAX_HTML = 100_000
MAX_PICTURES = 6
MAX_PICTURE = 100_000
MAX_FACTS = 256_000
#: A message that left this much later than its event says so.
LATE_S = 600.0

#: A word that a phone cannot show on one line, and where it may be broken: within a name.
_LONG = re.compile(r"(\S{28,})")
_BREAKS = re.compile(r"(?<=[_.])(?=\w)|(?=\[)")
_BARE = r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+"
_ADDRESS = re.compile(rf"(?P<bare>{_BARE})|[^<>@,;:]*<(?P<named>{_BARE})>")
_MESSAGE_ID = re.compile(r"<?([^<>\s@]+?)(?:\.(\d+))?@([^<>\s@]+)>?")


class Picture(Protocol):
    """A picture that somebody else drew: PNG bytes and the words that stand for it."""

    @property
    def png(self) -> bytes:
        """The bytes, with a background of their own."""

    @property
    def title(self) -> str:
        """Its finding."""

    @property
    def alt(self) -> str:
        """What it shows, with the number, for those who do not see it."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A picture and the Content-ID under which the HTML finds it."""

    cid: str
    alt: str
    png: bytes


def check_address(text: str) -> str:
    """Return the bare address of ``text``.

    Raises
    ------
    UsageError
        If it is no single e-mail address, or holds a line break.
    """
    found = _ADDRESS.fullmatch(text.strip())
    bare = (found["named"] or found["bare"]) if found and text.isprintable() else ""
    if not bare:
        raise UsageError(
            f"{text[:80]!r} is no e-mail address",
            hint='write addresses in [notify.email] like "team@example.com"',
        )
    return bare


def thread(message_id: str) -> tuple[str, tuple[str, ...]]:
    """Return a Message-ID in angle brackets and the References that its number implies.

    ``<key.0@domain>`` is the root of a thread; ``<key.n@domain>`` answers it and refers to
    the root and to the message before.  An id without a number stands alone.

    Raises
    ------
    UsageError
        If it is no Message-ID.

    Examples
    --------
    >>> thread("inc-42.0@example.com")
    ('<inc-42.0@example.com>', ())
    >>> thread("<inc-42.2@example.com>")
    ('<inc-42.2@example.com>', ('<inc-42.0@example.com>', '<inc-42.1@example.com>'))
    """
    found = _MESSAGE_ID.fullmatch(message_id)
    if found is None:
        raise UsageError(f"{message_id[:80]!r} is no Message-ID")
    key, index, domain = found.groups()
    if index is None:
        return f"<{key}@{domain}>", ()
    own = f"<{key}.{index}@{domain}>"
    if int(index) == 0:
        return own, ()
    wanted = (0, int(index) - 1) if int(index) > 1 else (0,)
    return own, tuple(f"<{key}.{one}@{domain}>" for one in wanted)


def compose(
    notice: Notice,
    facts: Mapping[str, Any],
    *,
    sender: str,
    recipient: str,
    message_id: str,
    now: float,
    pictures: Iterable[Picture] = (),
) -> EmailMessage:
    """Compose the message that tells one recipient of one event.

    Parameters
    ----------
    notice : Notice
        What it says.
    facts : mapping
        The facts behind it; they travel as ``drift.json``, without small groups and secrets.
    sender, recipient : str
        Addresses.
    message_id : str
        The same on every attempt; its number places it in its thread, see :func:`thread`.
    now : float
        Time of sending (seconds, UTC).
    pictures : iterable of Picture
        The first :data:`MAX_PICTURES` that are not too large are shown, the rest left out.

    Raises
    ------
    UsageError
        If an address or the Message-ID is none.
    """
    message = EmailMessage(policy=SMTP)
    domain = check_address(sender).rpartition("@")[2]
    own, references = thread(message_id)
    message["From"] = Address("mlguard", addr_spec=check_address(sender))
    message["To"] = Address(addr_spec=check_address(recipient))
    message["Subject"] = notice.subject
    message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    message["Message-ID"] = own
    if references:
        message["In-Reply-To"] = references[0]
        message["References"] = " ".join(references)
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    labels = [part for part in (notice.app, notice.environment, "mlguard", domain) if part]
    message["List-Id"] = "<" + ".".join(_label(part) for part in labels) + ">"

    placed = _place(pictures, own)
    message.set_content(text_part(notice, [one.alt for one in placed], now), cte="quoted-printable")
    message.add_alternative(html_part(notice, placed, now), subtype="html", cte="quoted-printable")
    html = message.get_payload(1)
    assert isinstance(html, EmailMessage)
    if not placed:
        html.make_related()
    for one in placed:
        html.add_related(
            one.png, "image", "png", cid=f"<{one.cid}>", disposition="inline",
            filename=f"{one.cid.partition('@')[0]}.png",
        )  # fmt: skip
    message.add_attachment(
        facts_json(facts), "application", "json", disposition="attachment", filename="drift.json"
    )
    return message


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:64] or "-"


def _place(pictures: Iterable[Picture], message_id: str) -> list[_Placed]:
    domain = message_id.strip("<>").rpartition("@")[2]
    key = message_id.strip("<>").rpartition("@")[0]
    fitting = [one for one in pictures if len(one.png) <= MAX_PICTURE][:MAX_PICTURES]
    return [
        _Placed(cid=f"{key}.picture{index}@{domain}", alt=printable(one.alt, 600), png=one.png)
        for index, one in enumerate(fitting, 1)
    ]


def _late(notice: Notice, now: float) -> str:
    if notice.at is None or now - notice.at < LATE_S:
        return ""
    return f"This message is {duration(now - notice.at)} late: it could not be sent before."


def _footer(notice: Notice, now: float) -> str:
    place = " · ".join(
        part for part in ("mlguard", notice.project, notice.environment, notice.app) if part
    )
    when = "" if notice.at is None else f" · {moment(notice.at)}"
    if when and now - (notice.at or now) >= LATE_S:
        when += f" ({ago(notice.at, now)})"
    return f"{place}{when}"


def text_part(notice: Notice, pictures: Sequence[str], now: float) -> str:
    """Return the plain text of a notice: complete without its HTML and its pictures."""
    blocks = [_fill(f"{notice.mark} {notice.headline}\n{notice.serves}".strip())]
    if _late(notice, now):
        blocks.append(_fill(_late(notice, now)))
    if notice.earlier:
        lines = [_fill(f"{moment(at)}  {what}", 2) for at, what in notice.earlier]
        blocks.append("\n".join(["Before that", *lines]))
    answers = (
        ("Why", notice.why),
        ("What mlguard did", notice.did),
        ("What you can do next", notice.next_step),
    )
    blocks += [f"{title}\n{_fill(text, 2)}" for title, text in answers if text]
    if notice.command:
        blocks.append(f"    {notice.command}")
    if pictures:
        blocks.append("Pictures\n" + "\n".join(_fill(alt, 2) for alt in pictures))
    if notice.numbers:
        width = max(len(name) for name, _ in notice.numbers) + 2
        blocks.append("\n".join(f"{name:<{width}}{text}" for name, text in notice.numbers))
    if notice.table:
        blocks.append(_text_table(notice))
    sections = [*notice.sections, ("Waived in what serves", notice.waived)]
    blocks += [
        "\n".join([title, *(_fill(one, 2) for one in told)]) for title, told in sections if told
    ]
    blocks.append(f"-- \n{_footer(notice, now)}")
    lines = "\n\n".join(blocks).split("\n")
    return "\n".join(map(inert, lines)) + "\n"


def _text_table(notice: Notice) -> str:
    lines = [notice.table_title] if notice.table_title else []
    for row in notice.table:
        mark = f"{row.verdict.mark} " if row.verdict else ""
        word = f" ({row.verdict.word})" if row.verdict else ""
        limit = f"; limit {row.limit}" if row.limit else ""
        lines += [f"  {mark}{row.name}{word}", f"      {row.estimate}{limit}"]
    if notice.more_rows:
        lines.append(f"  and {notice.more_rows} more in the report")
    return "\n".join(lines)


def _fill(text: str, indent: int = 0) -> str:
    """Wrap every line of a text by words; a long name stays whole."""
    space = " " * indent
    return "\n".join(
        textwrap.fill(
            line, WIDTH, initial_indent=space, subsequent_indent=space,
            break_long_words=False, break_on_hyphens=False,
        )
        for line in text.splitlines()
    )  # fmt: skip


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["together"] = _together
    return environment.get_template("mail.html.j2")


def _together(text: str) -> Markup:
    """Say where a narrow screen may break a line: not in ``n = 640``, but in a check's name."""
    from markupsafe import Markup

    text = re.sub(r"(?<=\bn) = (?=[\d–])", "\u00a0=\u00a0", text)
    text = re.sub(r"(?<=\d) (?=UTC\b)", "\u00a0", text)
    words = _LONG.split(text)
    # Long words stand at the odd places; joining escapes.
    return Markup("").join(
        Markup("<wbr>").join(_BREAKS.split(one)) if at % 2 else one for at, one in enumerate(words)
    )


def html_part(notice: Notice, pictures: Sequence[_Placed], now: float) -> str:
    """Return the HTML of a notice; a table that makes it too large is cut, and says so."""
    text = _template().render(
        notice=notice,
        pictures=pictures,
        footer=_footer(notice, now),
        late=_late(notice, now),
        label=notice.label,
        moment=moment,
    )
    if len(text.encode()) > MAX_HTML and notice.table:
        kept = len(notice.table) // 2
        more = notice.more_rows + len(notice.table) - kept
        short = dataclasses.replace(notice, table=notice.table[:kept], more_rows=more)
        return html_part(short, pictures, now)
    return text


def facts_json(facts: Mapping[str, Any]) -> bytes:
    """Return facts as strict JSON of bounded size; what is drawn is left out where too large."""
    document = _strict(without_small_groups(without_secrets(facts)))
    for without in ((), ("charts",), ("charts", "figures", "measurements", "detail", "details")):
        kept = {key: value for key, value in document.items() if key not in without}
        if without:
            kept["left_out"] = list(without)
        data = json.dumps(kept, ensure_ascii=False, indent=1, allow_nan=False).encode()
        if len(data) <= MAX_FACTS:
            return data
    return json.dumps({"left_out": "all: the facts are larger than 256 kB"}).encode()


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    if isinstance(value, float):
        return finite_or_none(value)
    return value if isinstance(value, str | int | bool) or value is None else str(value)
