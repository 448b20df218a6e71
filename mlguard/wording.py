"""How numbers, times and strange text are written for people, the same on every surface.

Two or three significant digits; an interval to the same place as its estimate; thousands
separated; times in UTC.  Text that came from outside (names, values, reasons) goes through
:func:`printable` before it reaches a terminal, a header or a page: control characters and
characters that turn the reading direction are shown, not obeyed, and length is bounded.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

#: Shown where there is no number.
NONE = "–"
#: Below this many rows a group's figure could point at a person: it is named without figures.
SMALL_GROUP = 10
#: Said in the place of such a figure.
TOO_FEW_TO_SHOW = f"fewer than {SMALL_GROUP} rows"

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def _places(value: float) -> int:
    """Decimal places that show two or three significant digits of a value."""
    size = abs(value)
    if size >= 100:
        return 0
    if size >= 10:
        return 1
    return 2 if size >= 0.095 or size == 0 else min(9, 1 - math.floor(math.log10(size)))


def _places_of_interval(value: float, width: float) -> int:
    """Decimal places that an estimate deserves: its interval's width has one or two digits."""
    least = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    if width <= 0:
        return max(least, min(4, _places(value)))
    exponent = math.floor(math.log10(width))
    # A width of 0.011 shows its second digit, one of 0.08 does not need to.
    return min(9, max(least, -exponent + (width / 10.0**exponent < 2.5)))


def number(value: float | None, *, places: int | None = None) -> str:
    """Write a number with two or three significant digits.

    Parameters
    ----------
    value : float or None
        None, NaN and infinities have words of their own.
    places : int, optional
        Decimal places to force, e.g. those of the estimate an interval belongs to.

    Examples
    --------
    >>> number(0.3134), number(1204.0), number(0.00432), number(0.05), number(None)
    ('0.31', '1,204', '0.0043', '0.05', '–')
    """
    if value is None:
        return NONE
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if 0 < abs(value) < 1e-6 or abs(value) >= 1e12:
        return f"{value:.2g}".replace("-", "−")
    shown = f"{value:,.{_places(value) if places is None else places}f}"
    if places is None and "." in shown:
        whole, _, decimals = shown.partition(".")
        kept = decimals.rstrip("0")
        # A ratio keeps two places (0.20); a size does not (12).
        if abs(value) < 1:
            kept = kept.ljust(2, "0")
        shown = f"{whole}.{kept}" if kept else whole
    return shown.replace("-", "−")


def count(n: int | None) -> str:
    """Write a count with its thousands separated.

    Examples
    --------
    >>> count(1204), count(None)
    ('1,204', '–')
    """
    return NONE if n is None else f"{n:,}".replace("-", "−")


def group_size(n: int) -> str:
    """Write how many rows a group of people has; of a few not how many.

    Examples
    --------
    >>> group_size(1204), group_size(7), group_size(0)
    ('1,204', 'fewer than 10', '0')
    """
    return f"fewer than {SMALL_GROUP}" if 0 < n < SMALL_GROUP else count(n)


def estimate(
    value: float | None,
    interval: Sequence[float | None] | None = None,
    n: int | None = None,
    *,
    unit: str = "",
) -> str:
    """Write an estimate with its interval and its n, as far as they are known.

    Examples
    --------
    >>> estimate(0.31, (0.27, 0.35), 1204)
    '0.31 [0.27, 0.35], n = 1,204'
    >>> estimate(0.0, (0.0, 0.0004)), estimate(12.0, unit="ms")
    ('0.0000 [0.0000, 0.0004]', '12 ms')
    """
    low, high = interval if interval is not None and len(interval) == 2 else (None, None)
    known = [bound for bound in (low, high) if bound is not None and math.isfinite(bound)]
    width = known[1] - known[0] if len(known) == 2 else None
    places = None
    if width is not None and value is not None and math.isfinite(value):
        places = _places_of_interval(value, width)
    text = number(value, places=places)
    if unit and value is not None:
        text += f" {unit}"
    if known:
        text += f" [{number(low, places=places)}, {number(high, places=places)}]"
    if n is not None:
        text += f", n = {count(n)}"
    return text


def share(value: float | None) -> str:
    """Write a ratio in [0, 1] as a percentage for reading in a sentence.

    Examples
    --------
    >>> share(0.0312), share(0.25), share(0.0)
    ('3.1 %', '25 %', '0 %')
    """
    if value is None or not math.isfinite(value):
        return NONE
    percent = 100 * value
    if percent and abs(percent) < 10:
        return f"{percent:.2g} %".replace("-", "−")
    return f"{percent:.0f} %".replace("-", "−")


def moment(at: float | None) -> str:
    """Write a time in UTC.

    Examples
    --------
    >>> moment(1795357320.0)
    '2026-11-22 14:22 UTC'
    """
    if at is None:
        return NONE
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def rfc3339(at: float) -> str:
    """Write a time for programs.

    Examples
    --------
    >>> rfc3339(1795357320.25)
    '2026-11-22T14:22:00.250Z'
    """
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """Write a stretch of time in its one fitting unit.

    Examples
    --------
    >>> duration(42), duration(3 * 3600), duration(7 * 86400)
    ('42 s', '3 h', '7 d')
    """
    size = abs(seconds)
    for unit, length in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if size >= 2 * length or (size >= length and size % length < length / 12):
            return f"{size / length:.0f} {unit}"
    return f"{size:.0f} s" if size >= 1 or size == 0 else f"{size * 1000:.0f} ms"


def ago(at: float | None, now: float) -> str:
    """Write how long ago something was.

    Examples
    --------
    >>> ago(1000.0, 1000.0 + 3 * 3600), ago(1000.0, 1000.0), ago(1060.0, 1000.0)
    ('3 h ago', 'just now', 'in 1 min')
    """
    if at is None:
        return NONE
    passed = now - at
    if abs(passed) < 1:
        return "just now"
    return f"{duration(passed)} ago" if passed > 0 else f"in {duration(passed)}"


def printable(text: object, limit: int = 200, *, lines: bool = False) -> str:
    r"""Return text from outside in a form that cannot do anything but be read.

    Parameters
    ----------
    text : object
        Anything; it is turned into a string.
    limit : int, default 200
        Longest result; what is cut off is marked by an ellipsis.
    lines : bool, default False
        Whether line feeds are kept; else they become spaces.

    Examples
    --------
    >>> printable("v8\r\nBcc: everybody")
    'v8 Bcc: everybody'
    >>> printable("abc\u202edef")
    'abc\\u202edef'
    """
    pieces = []
    raw = str(text)[: 4 * limit].replace("\r\n", "\n")
    for char in raw:
        if char == "\n" and lines:
            pieces.append(char)
        elif char in "\n\r\t\v\f\x85\u2028\u2029":
            pieces.append(" ")
        elif unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn"):
            pieces.append(f"\\u{ord(char):04x}")
        else:
            pieces.append(char)
    clean = "".join(pieces)
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"


class Step(str):
    """A line of progress that knows how far the work is, for whoever draws a bar.

    It is text to everybody else.

    Attributes
    ----------
    done, total : int
        How many parts of the work are done, of how many; ``total`` is at least 1.

    Examples
    --------
    >>> step = Step("gate 3/31: ✓ baseline.beats", 3, 31)
    >>> print(step, step.done, step.total)
    gate 3/31: ✓ baseline.beats 3 31
    """

    __slots__ = ("done", "total")

    done: int
    total: int

    def __new__(cls, text: str, done: int, total: int) -> Self:
        """Return the line."""
        step = super().__new__(cls, text)
        step.done, step.total = done, total
        return step


def inert(line: str) -> str:
    """Return a line that a CI runner takes for no command, wherever its text is from.

    A runner trims blanks before it looks for two colons.

    Examples
    --------
    >>> inert("  ::error::boo"), inert("a::b")
    ('  : :error::boo', 'a::b')
    """
    return line.replace("::", ": :", 1) if line.lstrip().startswith("::") else line


def listed(names: Sequence[str], limit: int = 5) -> str:
    """Write names as a list that does not get long.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b"]), listed(list("abcdefg"), 3)
    ('a', 'a and b', 'a, b, c and 4 more')
    """
    names = list(names)
    if len(names) > limit:
        return f"{', '.join(names[:limit])} and {len(names) - limit} more"
    if len(names) > 1:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    return names[0] if names else NONE
