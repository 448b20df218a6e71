"""The known name that a mistyped one most resembles."""

from __future__ import annotations

import difflib


def nearest(name: str, known: set[str] | list[str]) -> str:
    """Return "; did you mean …?", or nothing where no known name is close."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
