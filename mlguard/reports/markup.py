"""What every page of mlguard's is made with: the templates, the style, and words as Markdown.

Rule: a value from outside is text, on a page as in Markdown.  Jinja escapes it for HTML,
:func:`md` for Markdown, and :func:`printable_values` takes out what a screen would obey.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard import wording
from mlguard.reports.view import Figure
from mlguard.wording import count, estimate, number, printable

if TYPE_CHECKING:
    import jinja2

#: Longest text from outside that a page shows.
MAX_TEXT = 2000
#: Folder of the templates; other pages use its ``parts.html.j2``.
TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


@functools.cache
def theme() -> str:
    """Return the colours of both themes, as CSS variables."""
    return (TEMPLATES / "theme.css").read_text(encoding="utf-8")


@functools.cache
def style() -> str:
    """Return the style of every page."""
    return theme() + (TEMPLATES / "report.css").read_text(encoding="utf-8")


def page(template: str, **values: Any) -> str:
    """Render a template as a page that stands alone: the style is inside.

    Parameters
    ----------
    template : str
        Name of a file in ``templates/``.
    **values : Any
        What it shows; every text in it is escaped.
    """
    from markupsafe import Markup

    css = Markup(style())  # noqa: S704 - our files
    return _environment().get_template(template).render(words=wording, css=css, **values)


def printable_values(value: Any) -> Any:
    """Return JSON values with every text made printable; keys are our own."""
    if isinstance(value, dict):
        return {key: printable_values(one) for key, one in value.items()}
    if isinstance(value, list):
        return [printable_values(one) for one in value]
    return printable(value, MAX_TEXT) if isinstance(value, str) else value


def md(text: str) -> str:
    """Return text that Markdown reads as text."""
    text = re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", text)
    # A line that begins with two colons is a command to a CI runner that prints it.
    return re.sub(r"\A(\s*)::", r"\1\\::", text)


def md_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def md_verdict(figure: Figure) -> str:
    """Return the verdict of a figure with its shape."""
    return f"{figure.verdict.mark} {figure.verdict.word}"


def md_figures(title: str, figures: Sequence[Figure]) -> list[str]:
    """Return a section with a table of figures; nothing where there are none."""
    if not figures:
        return []
    rows = [
        (
            md_verdict(one),
            md(one.name) + (f"<br>{md(one.summary)}" if one.summary else ""),
            md(estimate(one.value, one.interval)),
            number(one.limit),
            count(one.n),
        )
        for one in figures
    ]
    return [f"## {title}", md_table(("verdict", "what", "value", "limit", "n"), rows)]
