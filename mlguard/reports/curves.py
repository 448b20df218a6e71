"""Curves of a few groups in one or more panels: ROC, outcome curve, rates by threshold.

Groups differ by colour and by line style, what was chosen by the shape of its mark; both are
named once, above the panels.  A mark is an outline, so that one does not hide another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlguard.reports.charts import (
    DPI,
    INK,
    OKABE_ITO,
    PAPER,
    SOFT,
    Style,
    wrapped,
)
from mlguard.reports.view import Curve, CurveChart, Panel
from mlguard.wording import number, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Line styles and marks in order of use: no two groups or choices look alike without colour.
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
SHAPES = ("o", "s", "^", "D", "v", "P")
#: Groups drawn in one chart.
GROUPS = 8
#: CSS pixels: of a single panel, of one of several, and of what stands around each.
SINGLE, SMALL = 300.0, 170.0
LEFT, RIGHT, BOTTOM, ABOVE = 52.0, 12.0, 42.0, 24.0


def paint(chart: CurveChart, style: Style) -> Figure:
    """Draw a chart of curves.

    Parameters
    ----------
    chart : CurveChart
    style : Style

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    square = chart.guide == "diagonal"
    wide = len(chart.panels) > 1 and style.width > 480
    columns = 2 if wide else 1
    rows = -(-len(chart.panels) // columns)
    names = list(dict.fromkeys(one.name for panel in chart.panels for one in panel.curves))[:GROUPS]
    labels = list(dict.fromkeys(one.label for panel in chart.panels for one in panel.marks))
    lines = wrapped(chart.title, style) if style.medium == "mail" else []
    words = [names, labels] if labels else [names]
    key = sum(_key_rows(one, style) for one in words) * style.font * 1.55 + 6
    top = 10 + (len(lines) * style.font * 1.45 + 8 if lines else 0) + key
    # A square is as high as it is wide; its width leaves room for nothing else.
    width = min(style.width, 520.0) if square else style.width / columns
    height = width - LEFT - RIGHT if square else (SINGLE if len(chart.panels) == 1 else SMALL)
    total = top + rows * (height + BOTTOM + ABOVE)
    figure = Figure(figsize=(style.width / DPI, total / DPI), dpi=DPI)
    if lines:
        figure.text(
            8 / style.width, 1 - 8 / total, "\n".join(lines), va="top", ha="left",
            fontsize=style.font * 1.1 * 72 / DPI, fontweight="bold", linespacing=1.3,
        )  # fmt: skip
    for place, panel in enumerate(chart.panels):
        row, column = divmod(place, columns)
        bottom = total - top - row * (height + BOTTOM + ABOVE) - ABOVE - height
        axes = figure.add_axes(
            (
                (column * width + LEFT) / style.width,
                bottom / total,
                (width - LEFT - RIGHT) / style.width,
                height / total,
            )
        )
        _panel(axes, panel, chart, names, labels)
        axes.set_title(printable(panel.label, 60), loc="left", fontsize=style.font * 72 / DPI)
        axes.set_xlabel(printable(chart.x_label, 60))
    _key(figure, style, names, labels, below=total - top + key, total=total)
    return figure


def _panel(
    axes: Axes, panel: Panel, chart: CurveChart, names: list[str], labels: list[str]
) -> None:
    if chart.guide == "diagonal":
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (1, 3)), zorder=1)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    elif chart.guide == "zero" and _crosses_zero(panel):
        axes.axhline(0, color=INK, linewidth=0.9, zorder=1)
    for one in panel.curves:
        if one.name in names:
            _curve(axes, one, names.index(one.name))
    for mark in panel.marks:
        if mark.curve in names:
            axes.plot(
                [mark.x], [mark.y], marker=SHAPES[labels.index(mark.label) % len(SHAPES)],
                color=_color(names.index(mark.curve)), markerfacecolor="none", markersize=7.5,
                markeredgewidth=1.6, linestyle="none", zorder=4,
            )  # fmt: skip
    axes.grid()
    axes.set_axisbelow(True)
    if chart.guide != "diagonal":
        axes.xaxis.set_major_locator(_round_ticks(6))
        axes.yaxis.set_major_locator(_round_ticks(6))
        axes.xaxis.set_major_formatter(lambda value, _: _tick(value, axes.get_xlim()))
        axes.yaxis.set_major_formatter(lambda value, _: _tick(value, axes.get_ylim()))


def _crosses_zero(panel: Panel) -> bool:
    """Whether 0 lies within a panel's values; a line far from them would squeeze them."""
    values = [value for one in panel.curves for value in one.y]
    return bool(values) and min(values) < 0 < max(values)


def _curve(axes: Axes, one: Curve, place: int) -> None:
    axes.plot(
        one.x, one.y, color=_color(place), linestyle=DASHES[place % len(DASHES)], linewidth=1.7,
        zorder=2, marker="o" if one.low else None, markersize=4,
    )  # fmt: skip
    if one.low:
        axes.vlines(one.x, one.low, one.high, color=_color(place), linewidth=1.0, zorder=2)


def _color(place: int) -> str:
    return OKABE_ITO[place % len(OKABE_ITO)]


def _round_ticks(most: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    # No steps of 2.5: a tick's label then shows all of it.
    return MaxNLocator(most, steps=[1, 2, 5, 10])


def _tick(value: float, limits: tuple[float, float]) -> str:
    span = abs(limits[1] - limits[0])
    return number(value, places=0 if span > 5 else 1 if span > 0.5 else 2 if span > 0.05 else 3)


# --- the key ---------------------------------------------------------------------------------


def _key_columns(words: list[str], style: Style) -> int:
    longest = max((len(printable(one, 28)) for one in words), default=1)
    most = max(1, int((style.width - 16) // (longest * style.font * 0.55 + 46)))
    # Rows of one length: two rows of two, not of three and one.
    return -(-len(words) // -(-len(words) // most))


def _key_rows(words: list[str], style: Style) -> int:
    return -(-len(words) // _key_columns(words, style))


def _key(
    figure: Figure, style: Style, names: list[str], labels: list[str], *, below: float, total: float
) -> None:
    """Name the groups by their lines, and below them the choices by their marks."""
    from matplotlib.lines import Line2D

    groups = [
        Line2D([], [], color=_color(at), linestyle=DASHES[at % len(DASHES)], linewidth=1.7)
        for at in range(len(names))
    ]
    choices = [
        Line2D(
            [], [], color=INK, marker=SHAPES[at % len(SHAPES)], markerfacecolor=PAPER,
            markersize=7, markeredgewidth=1.4, linestyle="none",
        )
        for at in range(len(labels))
    ]  # fmt: skip
    for handles, words in ((groups, names), (choices, labels)):
        if not words:
            continue
        figure.legend(
            handles, [printable(one, 28) for one in words], loc="upper left",
            bbox_to_anchor=(2 / style.width, below / total), ncols=_key_columns(words, style),
            frameon=False, handlelength=2.4, columnspacing=1.4, handletextpad=0.6,
            labelspacing=0.35, borderpad=0.1,
        )  # fmt: skip
        below -= _key_rows(words, style) * style.font * 1.55
