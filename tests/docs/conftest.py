"""What tests of the documentation share: its pages, their blocks, the commands that exist."""

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    runnable: bool

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"


def all_pages() -> list[Path]:
    """Every page: the documentation, and the Markdown that lies beside the code."""
    beside = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / folder / "README.md" for folder in ("checks", "serving", "reports")),
    ]
    return sorted((ROOT / "docs").rglob("*.md")) + [one for one in beside if one.is_file()]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page; `% runnable` on the line before marks one that is run."""
    text = page.read_text(encoding="utf-8")
    found = []
    for one in _FENCE.finditer(text):
        before = text[: one.start()]
        found.append(
            Block(
                page=name_of(page),
                line=before.count("\n") + 1,
                language=one["language"].strip(),
                text=one["text"],
                runnable=before.endswith("% runnable\n"),
            )
        )
    return found


def all_blocks(*languages: str) -> list[Block]:
    return [one for page in all_pages() for one in blocks_of(page) if one.language in languages]


def load_generator() -> ModuleType:
    """`docs/generate.py`, loaded by path: it is no part of any package."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generate() -> ModuleType:
    return load_generator()


@pytest.fixture(scope="session")
def root() -> Path:
    """Folder that holds the documentation and the example project."""
    return ROOT


@pytest.fixture(scope="session")
def pages() -> dict[str, Path]:
    """Every page by its path from the root."""
    return {name_of(page): page for page in all_pages()}


@pytest.fixture(scope="session")
def blocks() -> list[Block]:
    """Every fenced block of every page."""
    return [one for page in all_pages() for one in blocks_of(page)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each block its own test, named by page and line."""
    languages = {"toml_block": "toml", "python_block": "python"}
    for name, language in languages.items():
        if name in metafunc.fixturenames:
            found = all_blocks(language)
            metafunc.parametrize(name, found, ids=[one.id for one in found])
    if "runnable_page" in metafunc.fixturenames:
        found = [one for one in all_pages() if any(block.runnable for block in blocks_of(one))]
        metafunc.parametrize("runnable_page", found, ids=[name_of(one) for one in found])
