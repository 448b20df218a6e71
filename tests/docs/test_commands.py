"""Whoever is told to type a command can type it: each one that is mentioned exists.

Looked at: pages (code only), the library's texts, and the files of a project that it writes.
A mention counts with its options: ``mlguard deploy APP --supersede`` needs both to exist.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlguard

#: After "mlguard" in a sentence of the library, where it is the name of whoever acts.
SENTENCES = frozenset({"did", "dies", "holds", "keeps", "knows", "kept", "on", "opened", "closed"})
SENTENCES |= {"or", "project", "runs", "sends", "sent", "serves", "stands", "took", "switched"}
SENTENCES |= {"goes", "is", "wrote", "arrives", "has", "monitors"}
#: Words that are no command wherever they stand: "any command", and Python's own.
PLACEHOLDERS = frozenset({"COMMAND", "import"})

_MENTION = re.compile(r"\bmlguard[ \n]+(?P<command>[A-Za-z][\w-]*)(?P<rest>[^`;\n,:()]*)")
_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
_CODE = re.compile(
    r"^ *```[^\n]*\n(?P<block>.*?)^ *```$|`(?P<span>[^`\n]+)`", re.MULTILINE | re.DOTALL
)
#: Where one command ends and the next begins on a line.
_SEPARATOR = re.compile(r"&&|\|\||[;|#]| or | and ")


@pytest.fixture(scope="session")
def commands(generate):
    """Each command with its options."""
    options = {
        name: {text for one in command.params for text in (*one.opts, *one.secondary_opts)}
        for name, command in generate.all_commands().items()
    }
    return {name: known | {"--help", "-h"} for name, known in options.items()}


def unknown(text: str, commands: dict[str, set[str]], *, prose: bool) -> Iterator[str]:
    """Return what a text tells people to type and nobody can."""
    for one in _MENTION.finditer(text):
        command = one["command"]
        if command in PLACEHOLDERS or (prose and command in SENTENCES):
            continue
        if command not in commands:
            yield f"mlguard {command}"
            continue
        typed = _SEPARATOR.split(one["rest"])[0]
        yield from (
            f"mlguard {command} {option}"
            for option in _OPTION.findall(typed)
            if option not in commands[command]
        )


def code_of(page: Path) -> Iterator[str]:
    """Return what stands in code blocks and code spans of a page."""
    for one in _CODE.finditer(page.read_text(encoding="utf-8")):
        yield one["block"] or one["span"] or ""


def texts_of(file: Path) -> Iterator[tuple[int, str, bool]]:
    """Return the strings of a Python file: line, text, whether it may be a sentence.

    Values that an f-string puts in become ``…``; of a docstring only code counts.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    parts = {id(part) for one in nodes if isinstance(one, ast.JoinedStr) for part in one.values}
    docstrings = {
        id(one.body[0].value)
        for one in nodes
        if isinstance(one, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and one.body
        and isinstance(one.body[0], ast.Expr)
    }
    for one in nodes:
        if isinstance(one, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in one.values
            )
            yield one.lineno, text, True
        elif isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in parts:
            if id(one) in docstrings:
                for span in re.findall(r"`+([^`\n]+)`+", one.value):
                    yield one.lineno, span, False
            else:
                yield one.lineno, one.value, True


def test_commands_on_the_pages_exist(pages, commands):
    """Code on a page names only commands and options that exist."""
    found = [
        f"{name}: {what}"
        for name, page in pages.items()
        for code in code_of(page)
        for what in unknown(code, commands, prose=False)
    ]
    assert not found, "\n".join(found)


def test_commands_in_messages_exist(commands):
    """A message of the library names only commands and options that exist."""
    folder = Path(mlguard.__file__).parent
    found = [
        f"{file.relative_to(folder)}:{line}: {what}"
        for file in sorted(folder.rglob("*.py"))
        for line, text, prose in texts_of(file)
        for what in unknown(text, commands, prose=prose)
    ]
    assert not found, "\n".join(found)


def test_commands_in_written_files_exist(commands, root):
    """Templates of reports and mail, and the projects that mlguard writes, name real commands."""
    folder = Path(mlguard.__file__).parent
    kinds = {".j2", ".html", ".toml", ".md", ".txt"}
    files = [one for one in folder.rglob("*") if one.suffix in kinds]
    files += [root / "mlguard.toml", *sorted((root / "serving").glob("*/app.toml"))]
    assert len(files) > 5
    found = [
        f"{file.name}: {what}"
        for file in files
        for what in unknown(file.read_text(encoding="utf-8"), commands, prose=True)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mlguard deploy credit --supersede", []),
        ("type: mlguard deply credit", ["mlguard deply"]),
        ("mlguard deploy credit --superseed", ["mlguard deploy --superseed"]),
        ("mlguard holds promotions", []),
        ("mlguard init && cd x --nowhere", []),
        ("see `mlguard status` or `ls --all`", []),
        ("wrapped: mlguard\n  rolback", ["mlguard rolback"]),
    ],
)
def test_what_counts_as_a_mention(commands, text, expected):
    """A mention is a command with the options behind it; a sentence about mlguard is none."""
    assert list(unknown(text, commands, prose=True)) == expected
