"""Links between pages lead somewhere."""

import re
import tomllib
from pathlib import Path

_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(text)]
    return {one.strip().replace(" ", "-") for one in words}


def test_relative_links_lead_to_files_and_headings(pages):
    """Every relative link names a file that exists and, behind `#`, a heading of it."""
    broken = []
    for name, page in pages.items():
        for one in _LINK.finditer(_FENCED.sub("", page.read_text(encoding="utf-8"))):
            target, _, anchor = one["target"].partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            place = (page.parent / target).resolve() if target else page
            if not place.exists() or (anchor and anchor not in anchors(place)):
                broken.append(f"{name}: {one['target']}")
    assert broken == []


def test_every_page_is_in_a_table_of_contents(pages, root):
    """No page of docs/ lies where nobody finds it."""
    listed = set()
    for page in (root / "docs").rglob("*.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in block.splitlines():
                if line.strip() and not line.startswith(":"):
                    listed.add((page.parent / f"{line.strip()}.md").resolve())
    documented = {page.resolve() for name, page in pages.items() if name.startswith("docs/")}
    assert documented - listed == {(root / "docs" / "index.md").resolve()}
    assert listed <= documented


def test_files_that_a_page_names_exist(pages, root):
    """A path into the library or the documentation, written in backticks, is there."""
    gone = []
    for name, page in pages.items():
        for path in re.findall(r"`((?:mlguard|docs|tests)/[\w./-]+)`", page.read_text("utf-8")):
            if not (root / path).exists():
                gone.append(f"{name}: {path}")
    assert gone == []


def test_the_map_names_every_room(root):
    """The architecture page lists the rooms of the import contract, in its order."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    wanted = [{room.strip() for room in layer.split("|")} for layer in layers]
    text = (root / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| ([^|]+) \|", text, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == wanted
