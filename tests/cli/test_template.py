"""What `mlguard init` writes is what stands at the root of the repository, and both are valid."""

import ast
import json
from importlib import resources
from pathlib import Path

import pytest

import mlguard.checks
from mlguard.config import load_app, load_project

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(str(resources.files("mlguard.cli") / "project_template"))
DEMO = Path(str(resources.files("mlguard.cli") / "demo_project"))
MADE = ("*.skops", "*.csv", "*.pyc")


def written_files(folder: Path) -> list[Path]:
    """Files that a person wrote, relative to ``folder``."""
    return sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and not any(path.match(made) for made in MADE)
    )


def test_template_is_the_root_with_one_app():
    """Every file of the template stands at the root with the same words."""
    files = written_files(TEMPLATE)
    assert files
    for path in files:
        assert (ROOT / path).read_text() == (TEMPLATE / path).read_text(), path


def test_root_has_nothing_for_iris_that_the_template_lacks():
    """What was added to the first app at the root was added to the template too."""
    for folder in ("checks/iris", "serving/iris"):
        assert written_files(ROOT / folder) == written_files(TEMPLATE / folder)


def test_folders_of_a_project_are_no_packages():
    """Two apps may both have a test_quality.py, and nothing is importable as `checks`."""
    for project in (ROOT, TEMPLATE, DEMO):
        for folder in ("checks", "serving", "reports"):
            assert not list((project / folder).rglob("__init__.py"))


@pytest.mark.parametrize(
    ("project", "apps"),
    [(ROOT, ["credit", "iris"]), (TEMPLATE, ["iris"]), (DEMO, ["lending"])],
    ids=["root", "template", "demo"],
)
def test_settings_are_valid(project, apps):
    """Every app of every project that we ship is read without complaint."""
    settings = load_project(project)
    assert settings.app_names() == apps
    for app in apps:
        assert load_app(settings, app).app.description


@pytest.mark.parametrize("project", [ROOT, DEMO], ids=["root", "demo"])
def test_suites_say_why(project):
    """A suite is Great Expectations' own JSON, and says in words what it is for."""
    suites = list(project.glob("checks/*/expectations/*.json"))
    assert suites
    for file in suites:
        suite = json.loads(file.read_text())
        assert suite["name"] == file.stem
        assert suite["notes"]
        assert all({"type", "kwargs"} <= set(one) for one in suite["expectations"])


def test_tests_of_the_examples_use_public_names_only():
    """The examples are mlguard's first user: what they import is documented for everybody."""
    for file in [*ROOT.glob("checks/*/*.py"), *ROOT.glob("serving/*/*.py"), *DEMO.rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not any(one.name.startswith("mlguard") for one in node.names), file
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlguard"):
                assert node.module == "mlguard.checks", file
                assert {one.name for one in node.names} <= set(mlguard.checks.__all__), file


def test_template_can_be_written_into_a_folder_with_files_of_its_own():
    """A folder that is somebody's git repository already has these files; init brings none."""
    names = {path.name for path in TEMPLATE.iterdir()}
    assert names.isdisjoint({".git", ".gitignore", "README.md", "pyproject.toml", "tests"})


def test_a_package_of_mlguard_holds_whole_projects():
    """The templates are found beside the installed code, wherever that is."""
    for folder, app in ((TEMPLATE, "iris"), (DEMO, "lending")):
        for name in ("mlguard.toml", f"serving/{app}/app.toml", f"serving/{app}/train.py"):
            assert (folder / name).is_file(), name
