"""Charts: the fewest that decide, drawn with matplotlib.

Rules: the title is the finding and stands outside the picture (in HTML) or on top of it (in
mail), never both; the text that stands for the picture carries the number; series have the
Okabe-Ito colours, and differ by line style or marker as well, so that they read in black and
white; two or three series are labelled where they end instead of in a legend.

The same drawing is made for two media.  *Page*: SVG whose text is text and whose colours are
CSS variables, so that it follows the page's font and theme.  *Mail*: PNG on its own paper.

matplotlib is imported where it is used: only in the child process that draws.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlguard.reports.view import (
    Chart,
    CurveChart,
    DriftChart,
    GroupChart,
    Mark,
    Point,
    SquareChart,
    TimeChart,
)
from mlguard.wording import count, number, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Medium = Literal["page", "mail"]

#: Okabe and Ito's colours that stand out from white and from near-black, in order of use.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, SOFT, LINE, PAPER, STATUS = "#1b1f24", "#57606a", "#d8dee4", "#ffffff", "#cf222e"
#: CSS pixels per inch: widths below are CSS pixels.
DPI = 96
#: Device pixels of a mail's picture for each CSS pixel.
MAIL_SCALE = 2.0
#: Categories drawn of one feature; the rest is drawn together.
CATEGORIES = 8
#: Groups drawn of one attribute.
GROUPS = 24

_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    STATUS: "var(--failed)",
    OKABE_ITO[0]: "var(--series-1)",
    OKABE_ITO[1]: "var(--series-2)",
}


@dataclass(frozen=True, slots=True)
class Style:
    """How a drawing looks in one medium: sizes in CSS pixels."""

    medium: Medium
    width: int
    font: float

    def height(self, pixels: float, top: float) -> float:
        """Return the height of a drawing; a mail's has its title on top."""
        return pixels + (top if self.medium == "mail" else 0)


def draw(chart: Chart, *, medium: Medium, width: int) -> bytes:
    """Draw one chart.

    Parameters
    ----------
    chart : Chart
    medium : {"page", "mail"}
        SVG with CSS variables, or PNG with the title on top.
    width : int
        Width in CSS pixels; the height follows from the chart.

    Returns
    -------
    bytes
        SVG without an XML declaration, to stand inside HTML; or PNG.
    """
    style = Style(medium, width, 12.0 if medium == "page" else 13.5)
    painters: dict[type[Any], Callable[[Any, Style], Figure]] = {
        TimeChart: _time,
        GroupChart: _groups,
        DriftChart: _drift,
        SquareChart: _square,
        CurveChart: _curves,
    }
    with _settings(style):
        figure = painters[type(chart)](chart, style)
        return _png(figure) if medium == "mail" else _svg(figure, chart)


def _curves(chart: CurveChart, style: Style) -> Figure:
    # Not at the top: it draws with what stands in this module.
    from mlguard.reports.curves import paint

    return paint(chart, style)


@contextmanager
def _settings(style: Style) -> Iterator[None]:
    import matplotlib as mpl

    size = style.font * 72 / DPI
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "mlguard",
            "font.family": "sans-serif",
            "font.sans-serif": ["Liberation Sans", "Arial", "Helvetica", "DejaVu Sans"],
            "font.size": size,
            "axes.edgecolor": SOFT,
            "axes.labelcolor": SOFT,
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.unicode_minus": True,
            "text.color": INK,
            "text.parse_math": False,
            "xtick.color": SOFT,
            "ytick.color": SOFT,
            "xtick.labelsize": size,
            "ytick.labelsize": size,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 3,
            "ytick.major.size": 0,
            "grid.color": LINE,
            "grid.linewidth": 0.6,
            "figure.facecolor": PAPER,
            "axes.facecolor": "none",
            "savefig.facecolor": PAPER,
            "figure.dpi": DPI,
        }
    ):
        yield


def _figure(
    style: Style,
    height: float,
    title: str,
    *,
    left: float,
    right: float,
    bottom: float,
    key: float = 0,
) -> tuple[Figure, Axes]:
    """Make a figure with margins in CSS pixels, and its title on top where there is one."""
    from matplotlib.figure import Figure

    lines = wrapped(title, style) if style.medium == "mail" else []
    top = 10.0 + key + (len(lines) * style.font * 1.45 + 12 if lines else 0)
    total = height + top
    figure = Figure(figsize=(style.width / DPI, total / DPI), dpi=DPI)
    axes = figure.add_axes(
        (
            left / style.width,
            bottom / total,
            (style.width - left - right) / style.width,
            (total - bottom - top) / total,
        )
    )
    if lines:
        figure.text(
            8 / style.width, 1 - 8 / total, "\n".join(lines), va="top", ha="left",
            fontsize=style.font * 1.1 * 72 / DPI, fontweight="bold", linespacing=1.3,
        )  # fmt: skip
    return figure, axes


def wrapped(title: str, style: Style) -> list[str]:
    """Return a title in lines that fit the drawing."""
    import textwrap

    return textwrap.wrap(printable(title, 160), max(20, int(style.width / (style.font * 0.6))))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI * MAIL_SCALE)
    return _small(buffer.getvalue())


def _small(png: bytes) -> bytes:
    """Reduce a drawing to a palette: half the bytes, and the eye sees no difference."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        buffer = io.BytesIO()
        image.convert("RGB").quantize(128).save(buffer, "PNG", optimize=True)
    return min(png, buffer.getvalue(), key=len)


_serial = itertools.count()


def _svg(figure: Figure, chart: Chart) -> bytes:
    """Return SVG that can stand beside others in one page and follows its theme."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    prefix = f"c{next(_serial)}-"
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}", text)
    for color, variable in _VARIABLES.items():
        text = re.sub(color, variable, text, flags=re.IGNORECASE)
    # The page's font, not the one that was measured with.
    text = re.sub(r"font-family:[^;\"]+;?|'[A-Z][A-Za-z ]+', ?|, ?sans-serif", "", text)
    text = re.sub(r"font: (?:\w+ )?([\d.]+)px[^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(chart.alt)}" ', 1)
    text = re.sub(r"\n\s*", "\n", text)
    return text.encode()


def _attribute(text: str) -> str:
    import html

    return html.escape(printable(text, 600))


# --- one metric over time ----------------------------------------------------------------


def _time(chart: TimeChart, style: Style) -> Figure:
    wide = style.width > 480
    figure, axes = _figure(
        style, 250 if wide else 230, chart.title, left=44, right=20 if wide else 12, bottom=28
    )
    known = [(one.at, one.value) for one in chart.points if one.value is not None]
    _band(axes, chart.points)
    axes.plot(
        [at for at, _ in known], [value for _, value in known], color=OKABE_ITO[0], linewidth=1.6,
        marker="o", markersize=3.2 if len(known) <= 40 else 0, zorder=3,
    )  # fmt: skip
    _vertical_range(axes, chart)
    _time_axis(axes, chart, 6 if wide else 3)
    _limit(axes, chart)
    _marks(axes, chart.marks, style)
    axes.yaxis.set_major_formatter(lambda value, _: _tick(value, axes))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    return figure


def _band(axes: Axes, points: Sequence[Point]) -> None:
    held = [
        (one.at, one.low, one.high)
        for one in points
        if one.value is not None and one.low is not None and one.high is not None
    ]
    axes.fill_between(
        [at for at, _, _ in held], [low for _, low, _ in held], [high for _, _, high in held],
        color=OKABE_ITO[0], alpha=0.18, linewidth=0, zorder=2,
    )  # fmt: skip


def _vertical_range(axes: Axes, chart: TimeChart) -> None:
    bounds = [
        bound
        for one in chart.points
        for bound in (one.value, one.low, one.high)
        if bound is not None
    ]
    if chart.limit is not None:
        bounds.append(chart.limit)
    low, high = (min(bounds), max(bounds)) if bounds else (0.0, 1.0)
    room = (high - low or abs(high) or 1.0) * 0.12
    floor = low - room
    # A ratio is never drawn below zero, and the labels of the marks need room above.
    axes.set_ylim(max(0.0, floor) if low >= 0 else floor, high + room * (2.4 if chart.marks else 1))


def _limit(axes: Axes, chart: TimeChart) -> None:
    if chart.limit is None:
        return
    axes.axhline(chart.limit, color=STATUS, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2)
    label = chart.limit_label or f"limit {number(chart.limit)}"
    right, below = _free_corner(chart, chart.limit, axes.get_xlim())
    axes.annotate(
        label, (int(right), chart.limit), xycoords=("axes fraction", "data"),
        xytext=(-4 if right else 4, -3 if below else 3), textcoords="offset points",
        color=STATUS, va="top" if below else "bottom", ha="right" if right else "left", zorder=4,
    )  # fmt: skip


def _free_corner(chart: TimeChart, limit: float, span: tuple[float, float]) -> tuple[bool, bool]:
    """Return where the limit's label covers least of the line: at the right end, below it."""
    known = [(one.at, one.value) for one in chart.points if one.value is not None]
    if not known:
        return False, False
    ats, values = zip(*known, strict=True)
    quarter = (span[1] - span[0]) / 4

    def room(corner: tuple[bool, bool]) -> float:
        right, below = corner
        start = span[1] - quarter if right else span[0]
        places = np.linspace(start, start + quarter, 20)
        line = np.interp(places[(places >= ats[0]) & (places <= ats[-1])], ats, values)
        # How far the nearest part of the line stays away on that side; none there is far.
        side = limit - line if below else line - limit
        return float(side[side > 0].min(initial=np.inf))

    # The usual place wins a draw.
    corners = [(False, False), (True, False), (False, True), (True, True)]
    return max(corners, key=room)


_MARK_STYLE: dict[str, tuple[str, Any, str]] = {
    "version": (SOFT, (0, (1, 2)), ""),
    "rollback": (STATUS, "solid", "◄ "),
    "incident": (STATUS, (0, (1, 1.5)), "▲ "),
    "default_output": (STATUS, "solid", "■ "),
}


def _marks(axes: Axes, marks: Sequence[Mark], style: Style) -> None:
    """Draw labelled rules; a label that would cover the one before goes one line down."""
    left, right = axes.get_xlim()
    ends: dict[int, float] = {}
    for mark in sorted(marks, key=lambda one: one.at):
        color, dash, shape = _MARK_STYLE[mark.kind]
        axes.axvline(mark.at, color=color, linewidth=0.9, linestyle=dash, zorder=1)
        text = shape + printable(mark.label, 28)
        length = (len(text) * style.font * 0.56 + 6) / (style.width - 64) * (right - left)
        turned = mark.at + length > right
        start, end = (mark.at - length, mark.at) if turned else (mark.at, mark.at + length)
        line = next((row for row in range(3) if ends.get(row, -1e300) <= start), 2)
        ends[line] = end
        axes.annotate(
            text, (mark.at, 1), xycoords=("data", "axes fraction"),
            xytext=(-3 if turned else 3, -line * style.font * 0.95), textcoords="offset points",
            va="top", ha="right" if turned else "left", color=INK, zorder=4,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip


def _time_axis(axes: Axes, chart: TimeChart, most: int) -> None:
    from matplotlib.dates import AutoDateLocator, num2date

    times = [one.at for one in chart.points] or [0.0]
    low, high = min(times), max(times)
    locator = AutoDateLocator(maxticks=most, minticks=2)  # type: ignore[no-untyped-call]  # matplotlib's
    moments = [datetime.fromtimestamp(one, UTC) for one in (low, max(high, low + 60))]
    found = locator.tick_values(*moments)  # type: ignore[no-untyped-call]  # matplotlib's
    ticks = [num2date(one).timestamp() for one in found]  # type: ignore[no-untyped-call]  # ditto
    span = high - low
    # A label right at the end would stand half outside.
    ticks = [one for one in ticks if low <= one <= high - 0.03 * span] or [low]
    form = "%-d %b" if span > 2 * 86400 else "%H:%M" if span > 900 else "%H:%M:%S"
    axes.set_xticks(ticks, [datetime.fromtimestamp(one, UTC).strftime(form) for one in ticks])
    if span > 0:
        # Ticks would stretch the axis to the last of them.
        axes.set_xlim(low - 0.02 * span, high + 0.02 * span)


def _tick(value: float, axes: Axes) -> str:
    low, high = axes.get_ylim()
    places = 0 if high - low > 5 else 1 if high - low > 0.5 else 2 if high - low > 0.03 else 3
    return number(value, places=places)


# --- groups ------------------------------------------------------------------------------


def _groups(chart: GroupChart, style: Style) -> Figure:
    known = [(one.value, one) for one in chart.groups if one.value is not None]
    known = sorted(known, key=lambda pair: pair[0])[-GROUPS:]
    longest = max((len(printable(one.group, 28)) for _, one in known), default=1)
    label = min(style.width * 0.36, 16 + longest * style.font * 0.58)
    height = 44 + 26 * max(1, len(known))
    # A page says beside the drawing what the band is.
    named = style.medium == "mail" and chart.band is not None and bool(chart.band_label)
    figure, axes = _figure(
        style, height, chart.title, left=label, right=84, bottom=30, key=_KEY_ROOM if named else 0
    )
    if chart.band is not None:
        axes.axvspan(*chart.band, color=OKABE_ITO[0], alpha=0.10, linewidth=0)
    if named:
        axes.annotate(
            f"band: {chart.band_label}", (0, 1), xycoords="axes fraction", xytext=(0, 5),
            textcoords="offset points", va="bottom", color=SOFT,
        )  # fmt: skip
    for row, (value, one) in enumerate(known):
        low = value if one.low is None else one.low
        high = value if one.high is None else one.high
        axes.plot([low, high], [row, row], color=INK, linewidth=1.2, solid_capstyle="butt")
        axes.plot([value], [row], "o", color=OKABE_ITO[0], markersize=6.5, zorder=3)
        axes.annotate(
            f"n = {count(one.n)}", (1, row), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", va="center", color=SOFT,
        )  # fmt: skip
    axes.set_yticks(range(len(known)), [printable(one.group, 28) for _, one in known])
    axes.tick_params(axis="y", colors=INK)
    axes.set_ylim(-0.7, max(1, len(known)) - 0.3)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(_few_ticks(4))
    axes.xaxis.set_major_formatter(lambda value, _: number(value, places=2))
    return figure


def _few_ticks(most: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most)


# --- before and after --------------------------------------------------------------------


def _drift(chart: DriftChart, style: Style) -> Figure:
    if chart.labels:
        return _categories(chart, style)
    figure, axes = _figure(style, 140, chart.title, left=10, right=10, bottom=28, key=_KEY_ROOM)
    widths = [max(b - a, 1e-12) for a, b in itertools.pairwise(chart.edges)]
    before, now = (
        [share / width for share, width in zip(shares, widths, strict=True)]
        for shares in (chart.reference, chart.current)
    )
    axes.stairs(now, chart.edges, color=OKABE_ITO[1], alpha=0.12, fill=True, zorder=2)
    axes.stairs(
        before, chart.edges, color=SOFT, linewidth=1.2, linestyle=(0, (3, 2)), zorder=3,
        label="before",
    )  # fmt: skip
    axes.stairs(now, chart.edges, color=OKABE_ITO[1], linewidth=1.8, zorder=3, label="now")
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(_few_ticks(4))
    axes.xaxis.set_major_formatter(lambda value, _: number(value, places=_axis_places(axes)))
    axes.margins(x=0.01)
    _before_and_now(axes)
    return figure


#: Room above the axes for the words before and now.
_KEY_ROOM = 20.0


def _before_and_now(axes: Axes) -> None:
    """Name before and now above the axes, each in its own colour and line style."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, columnspacing=1.2, frameon=False,
        handlelength=1.4, handletextpad=0.5, borderpad=0.1, borderaxespad=0.2,
        labelcolor=[SOFT, OKABE_ITO[1]],
    )  # fmt: skip


def _axis_places(axes: Axes) -> int:
    span = abs(axes.get_xlim()[1] - axes.get_xlim()[0])
    return 0 if span > 5 else 1 if span > 0.5 else 2 if span > 0.05 else 3


def _categories(chart: DriftChart, style: Style) -> Figure:
    rows = list(zip(chart.labels, chart.reference, chart.current, strict=True))
    rows.sort(key=lambda one: -max(one[1], one[2]))
    rest = rows[CATEGORIES:]
    rows = rows[:CATEGORIES]
    if len(rest) == 1:
        rows += rest
    elif rest:
        rows.append(
            (f"{len(rest)} others", sum(one[1] for one in rest), sum(one[2] for one in rest))
        )
    label = min(
        style.width * 0.42, 14 + max(len(printable(one[0], 22)) for one in rows) * style.font * 0.56
    )
    figure, axes = _figure(
        style, 40 + 22 * len(rows), chart.title, left=label, right=14, bottom=28, key=_KEY_ROOM
    )
    for row, (_, before, after) in enumerate(reversed(rows)):
        axes.plot([before, after], [row, row], color=LINE, linewidth=1.4, zorder=1)
        axes.plot(
            [before], [row], "o", markersize=6, markerfacecolor=PAPER, color=SOFT, zorder=2,
            label="" if row else "before",
        )  # fmt: skip
        axes.plot(
            [after], [row], "o", markersize=6, color=OKABE_ITO[1], zorder=3,
            label="" if row else "now",
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [printable(one[0], 22) for one in reversed(rows)])
    axes.tick_params(axis="y", colors=INK)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(left=0 - 0.02 * axes.get_xlim()[1])
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(_few_ticks(3))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    _before_and_now(axes)
    return figure


# --- calibration -------------------------------------------------------------------------


def _square(chart: SquareChart, style: Style) -> Figure:
    side = min(style.width, 340)
    square = Style(style.medium, side, style.font)
    figure, axes = _figure(square, side - 10, chart.title, left=44, right=14, bottom=44)
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    for one in chart.points:
        axes.plot([one.predicted] * 2, [one.low, one.high], color=INK, linewidth=1.1)
    axes.plot(
        [one.predicted for one in chart.points], [one.observed for one in chart.points], "o-",
        color=OKABE_ITO[0], linewidth=1.4, markersize=5, zorder=3,
    )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("score")
    axes.set_ylabel("share that came true")
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([0, 0.5, 1])
    axes.grid()
    axes.set_axisbelow(True)
    return figure
