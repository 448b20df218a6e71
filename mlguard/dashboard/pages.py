"""Pages as HTML.

Rule: every text is made printable and escaped where it enters a page (jinja's ``finalize`` and
``autoescape``), so no template can forget it.  Nothing is inside a page that a strict
Content-Security-Policy would refuse: style, script and pictures are files of ours.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard import wording
from mlguard.dashboard.gallery import digest_of
from mlguard.reports.markup import TEMPLATES, style
from mlguard.wording import printable

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

#: Longest text from outside that a page shows; `mlguard history --json` has all of it.
MAX_TEXT = 600
#: The same for the answers at a page's head, which nobody should have to look up elsewhere.
MAX_ANSWER = 1600

_HERE = Path(__file__).parent
_STATIC = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_HERE / "templates", TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
    )
    environment.globals |= {"words": wording, "digest": digest_of}
    environment.filters["sentence"] = _sentence
    environment.filters["whole"] = _whole
    environment.filters["short"] = lambda text: printable(text, 120)
    return environment


def _harmless(value: Any) -> Any:
    """Return a value without what a screen would obey; what is HTML already stays."""
    return printable(value, MAX_TEXT) if type(value) is str else value


def _whole(text: str) -> Markup:
    """Return an answer as text of a page, with more room than other texts have."""
    from markupsafe import escape

    return escape(printable(text, MAX_ANSWER))


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?…" else f"{text}."


def render(template: str, **values: Any) -> str:
    """Render a page.

    Parameters
    ----------
    template : str
        Name of a file in ``templates/``.
    **values : Any
        What it shows.
    """
    return _environment().get_template(template).render(**values)


@functools.cache
def static(name: str) -> tuple[bytes, str] | None:
    """Return one of the dashboard's own files and its media type; None where there is none."""
    if name not in _STATIC:
        return None
    content = (_HERE / "static" / name).read_text(encoding="utf-8")
    if name == "dashboard.css":
        content = style() + content
    return content.encode(), _STATIC[name]
