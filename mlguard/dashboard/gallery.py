"""Pictures of charts, drawn in a process of their own and kept by what they show.

The server never loads the library that draws: a child process does, once for all charts of a
page, one child at a time.  What was drawn is kept by the digest of its data, so a page that is
looked at again costs no drawing until its numbers change.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from mlguard.reports.drawing import DrawingError, draw_svg
from mlguard.reports.markup import theme
from mlguard.reports.view import Chart, chart_to_json

#: Widths in CSS pixels of a chart on a desk and on a phone.
WIDE, NARROW = 880, 340
#: Pictures that are kept: some 10 kB each.
_KEPT = 256
#: Seconds before what could not be drawn is tried again.
_RETRY_S = 30.0

_FONT = (
    'text{font-family:-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,'
    "sans-serif;font-variant-numeric:tabular-nums}"
)


def digest_of(chart: Chart) -> str:
    """Return what tells charts with other data apart."""
    text = json.dumps(chart_to_json(chart), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Gallery:
    """Draws, and remembers.

    Parameters
    ----------
    draw : callable
        Draws charts of some widths as SVG.
    clock : callable, default time.monotonic
        Seconds.
    """

    def __init__(
        self,
        draw: Callable[[Sequence[tuple[Chart, int]]], list[bytes]] = draw_svg,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._draw = draw
        self._clock = clock
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._failed: tuple[float, frozenset[tuple[str, int]]] | None = None
        self._lock = threading.Lock()

    def picture(self, chart: Chart, width: int, beside: Sequence[Chart] = ()) -> bytes:
        """Return a chart as an SVG document that follows the reader's theme.

        Parameters
        ----------
        chart : Chart
        width : int
            In CSS pixels.
        beside : sequence of Chart
            What the same page shows: drawn with it where it is not there yet.

        Raises
        ------
        DrawingError
            If it could not be drawn, now or a moment ago.
        """
        wanted = (digest_of(chart), width)
        # One child at a time: who waits here finds it drawn.
        with self._lock:
            if wanted not in self._kept:
                self._fill(wanted, [chart, *beside])
            self._kept.move_to_end(wanted)
            return self._kept[wanted]

    def _fill(self, wanted: tuple[str, int], charts: Sequence[Chart]) -> None:
        absent = {
            (digest_of(one), width): (one, width)
            for one in charts
            for width in (WIDE, NARROW)
            if (digest_of(one), width) not in self._kept
        }
        if self._failed is not None:
            at, what = self._failed
            if wanted in what and self._clock() - at < _RETRY_S:
                raise DrawingError("this chart could not be drawn a moment ago")
        try:
            drawn = self._draw(list(absent.values()))
        except DrawingError:
            self._failed = (self._clock(), frozenset(absent))
            raise
        for key, svg in zip(absent, drawn, strict=True):
            self._kept[key] = standing_alone(svg)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


def standing_alone(svg: bytes) -> bytes:
    """Return SVG that has its colours and its font inside, for a page that loads it."""
    text = svg.decode()
    head = f"<style>{theme()}{_FONT}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda found: found[1] + head, text, count=1).encode()
