"""What the tables are made of: durations, ratios, names, times of day, and a strict table."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: object) -> float:
    """Return the seconds that ``"90s"``, ``"10m"``, ``"24h"`` or ``"7d"`` stands for.

    Raises
    ------
    ValueError
        If the text is not a number followed by one of s, m, h, d.
    """
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError('a duration is written like "90s", "10m", "24h" or "7d"')
    return float(found[1]) * _SECONDS[found[2]]


def _duration_or_seconds(value: object) -> object:
    # Defaults are written in seconds; what people write carries its unit.
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[
    float, BeforeValidator(_duration_or_seconds), Field(json_schema_extra={"unit": "duration"})
]

Ratio = Annotated[float, Field(ge=0, le=1)]

Text = Annotated[str, Field(min_length=1)]

KeyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]

OneOrMany = Annotated[
    list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class Table(BaseModel):
    """A TOML table: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyTable = TypeVar("AnyTable", bound=Table)

_CLOCK = r"([01]\d|2[0-3]):([0-5]\d)"

_DAILY = re.compile(rf"{_CLOCK} (\S+)")

_SPAN = re.compile(rf"{_CLOCK} (?:to|-) {_CLOCK} (\S+)")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{name!r} is no time zone; write UTC or a name like Europe/Paris"
        ) from error


def parse_daily(text: str) -> tuple[int, ZoneInfo]:
    """Return a time of day in minutes after midnight, and its zone.

    Raises
    ------
    ValueError
        If ``text`` is not of the form ``"08:00 UTC"``.

    Examples
    --------
    >>> parse_daily("08:30 UTC")[0]
    510
    """
    found = _DAILY.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is no time of day with a zone; write it like "08:00 UTC"')
    return int(found[1]) * 60 + int(found[2]), _zone(found[3])


def parse_span(text: str) -> tuple[int, int, ZoneInfo]:
    """Return the start and end of some hours of the day in minutes after midnight, and the zone.

    Raises
    ------
    ValueError
        If ``text`` is not of the form ``"22:00 to 07:00 UTC"``, or the hours are none or all.

    Examples
    --------
    >>> parse_span("22:00 to 07:00 UTC")[:2]
    (1320, 420)
    """
    found = _SPAN.fullmatch(text)
    if found is None or found.group(1, 2) == found.group(3, 4):
        raise ValueError(f'{text!r} are no hours of the day; write them like "22:00 to 07:00 UTC"')
    start, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    return start, end, _zone(found[5])


def checked_daily(text: str) -> str:
    """Return the text if it is a time of day."""
    parse_daily(text)
    return text


def checked_span(text: str) -> str:
    """Return the text if it is empty or a span of the day."""
    if text:
        parse_span(text)
    return text
