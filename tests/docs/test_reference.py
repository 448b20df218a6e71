"""The reference says what the code says: generated pages are current, written ones complete."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mlguard
from mlguard import errors, plugins, policy
from mlguard.config import load_project
from mlguard.errors import MlguardError


def test_generated_pages_are_up_to_date(root):
    """The committed pages are what `python docs/generate.py` writes today, in a process of its own.

    Plug-ins that other tests load would stand in the pages.
    """
    code = "import runpy; print(runpy.run_path('docs/generate.py')['out_of_date']())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n", "run: python docs/generate.py"


def test_the_check_compares_and_writes_nothing(root, generate, tmp_path, monkeypatch, capsys):
    """`--check` names what differs, ends with 1 and leaves it as it is."""
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    (tmp_path / "checks.md").write_text("old")
    assert generate.main(["--check"]) == 1
    assert "docs/reference/checks.md is out of date" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["checks.md"]
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_the_generator_runs_as_it_is_documented(root):
    """`python docs/generate.py --check` ends with 0 from the project's root."""
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="session")
def exit_codes(root):
    return (root / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")


def error_classes():
    """Every class of the tree in `mlguard.errors`."""
    return [
        one
        for _, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, MlguardError)
    ]


def test_every_error_stands_in_the_table_with_what_it_carries(exit_codes):
    """The table has every error with the exit code, the status and the code that it carries."""
    rows = re.findall(
        r"^\| `(\w+Error)` \| (\d+) \| (\d+) \| `(\w+)` \| (yes|no) \|", exit_codes, re.MULTILINE
    )
    told = {name: tuple(rest) for name, *rest in rows}
    assert told == {
        one.__name__: (
            str(one.exit_code),
            str(one.http_status),
            one.code,
            "yes" if one.retryable else "no",
        )
        for one in error_classes()
    }


def test_every_exit_code_is_explained(exit_codes):
    """Every code that a command can end with has a row of its own."""
    from mlguard.cli.session import INTERRUPTED

    explained = {int(one) for one in re.findall(r"^\| (\d+) \|", exit_codes, re.MULTILINE)}
    assert {one.exit_code for one in error_classes()} <= explained
    assert {0, 6, INTERRUPTED} <= explained


def test_every_route_is_listed(root, tmp_path):
    """Each route of the server stands in the table of http.md, and no other does."""
    from mlguard.server_app import create_app

    (tmp_path / "mlguard.toml").write_text("")
    served = {
        (method, route.path)
        for route in create_app(load_project(tmp_path)).routes
        for method in route.methods - {"HEAD"}
    }
    page = (root / "docs" / "reference" / "http.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([A-Z]+) (/\S*)`", page, re.MULTILINE))
    slashed = set(re.findall(r"`([A-Z]+) (/\S+/)`", page))
    assert listed | slashed == served


def test_every_monitor_and_hard_check_is_listed(generate):
    """Each registered monitor has its findings on the page, and the hard ones are marked."""
    ours = {
        name
        for name, point in plugins.found("mlguard.monitors").items()
        if point.value.startswith("mlguard.")
    }
    assert set(generate.FINDINGS) == ours
    listed = {name for findings in generate.FINDINGS.values() for name in findings}
    assert listed >= policy.HARD_CHECKS


def test_every_finding_that_the_code_names_is_listed(generate):
    """An id that stands in a monitor or in the gate's own code stands on the page as well."""
    folder = Path(mlguard.__file__).parent
    listed = {name for findings in generate.FINDINGS.values() for name in findings}
    families = "|".join(generate.FINDINGS)
    named = set()
    for file in (folder / "monitors").glob("*.py"):
        named |= set(re.findall(rf'"((?:{families})\.[a-z_]+)"', file.read_text(encoding="utf-8")))
    assert named <= listed
    gate = set()
    for room in ("checks", "pytest_plugin"):
        for file in (folder / room).glob("*.py"):
            gate |= set(re.findall(r'"(gate\.[a-z_]+)"', file.read_text(encoding="utf-8")))
    assert gate == set(generate.GATE_FINDINGS)


def test_declared_checks_have_the_enforcement_that_the_page_says(generate, root):
    """What the example project declares carries the enforcement of the page's table."""
    from mlguard.checks.declaration import declare_all
    from mlguard.config import load_app

    told = {
        name.strip("`"): enforcement.strip("`") for name, enforcement, _ in generate.check_rows()
    }
    settings = load_app(load_project(root), "credit")
    items = declare_all(settings, root).items
    assert items
    for item in items:
        known = "data_quality.expect_…" if ".expect_" in item.id else item.id
        assert item.policy.enforcement.value == told.get(known, "block"), item.name
    assert {"fairness.false_negative_rate_difference"} <= {item.id for item in items}
