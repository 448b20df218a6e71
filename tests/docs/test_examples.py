"""The examples of the documentation: they parse, they validate, and where they say so they run."""

import json
import tomllib
from typing import get_args

import pytest
import yaml

from mlguard import plugins
from mlguard.config import AppSettings, ProjectSettings, load_app, load_project

#: Tables that an app.toml must have, for examples that show other ones.
REQUIRED = {
    "app": 'description = "d"\nowner = "o"\ndecision = "d"\nsuccess_metric = "s"\n',
    "data": 'test = "test.csv"\n',
}


def test_toml_is_a_settings_file_or_a_part_of_one(toml_block, tmp_path):
    """Every TOML example is valid: keys, types and values are those that mlguard reads."""
    document = tomllib.loads(toml_block.text)
    assert document, "an example says something"
    if "entry-points" in document.get("project", {}):
        groups = document["project"]["entry-points"]
        assert set(groups) <= set(get_args(plugins.Group)), "groups that mlguard looks into"
        return
    (tmp_path / "mlguard.toml").write_text("")
    app_keys, project_keys = set(AppSettings.model_fields), set(ProjectSettings.model_fields)
    if set(document) <= project_keys:
        (tmp_path / "mlguard.toml").write_text(toml_block.text)
        load_project(tmp_path)
        return
    assert set(document) <= app_keys, f"{sorted(document)} stand in no settings file"
    missing = [f"[{name}]\n{keys}" for name, keys in REQUIRED.items() if name not in document]
    (tmp_path / "serving" / "example").mkdir(parents=True)
    (tmp_path / "serving" / "example" / "app.toml").write_text(
        "\n".join([toml_block.text, *missing])
    )
    load_app(load_project(tmp_path), "example")


def test_python_compiles(python_block):
    """Every Python example is Python."""
    compile(python_block.text, python_block.id, "exec")


def test_marked_python_runs(runnable_page, blocks, root, tmp_path, monkeypatch):
    """What is marked as runnable runs, the blocks of a page one after the other."""
    monkeypatch.chdir(tmp_path)
    name = runnable_page.relative_to(root).as_posix()
    shared = {"__name__": "__main__"}
    for block in blocks:
        if block.page == name and block.runnable:
            padding = "\n" * block.line  # errors then name the page's own line
            exec(compile(padding + block.text, block.page, "exec"), shared)


def test_the_marks_mark_python(blocks):
    """A block that is marked as runnable is one that is run."""
    assert {block.language for block in blocks if block.runnable} == {"python"}


def test_every_block_says_its_language(blocks):
    """A block without a language is coloured by guess, and no test knows what it holds."""
    known = {"bash", "console", "json", "python", "text", "toml", "yaml", "{toctree}"}
    pages = ("docs/", "README.md")
    strange = [
        (block.id, block.language)
        for block in blocks
        if block.page.startswith(pages) and block.language not in known
    ]
    assert strange == []


def test_json_and_yaml_are_what_they_say(blocks):
    """Every JSON and YAML example parses, and says something."""
    readers = {"json": json.loads, "yaml": yaml.safe_load}
    read = [readers[one.language](one.text) for one in blocks if one.language in readers]
    assert read
    assert all(read)


@pytest.mark.parametrize("name", ["curl", "mlguard", "pytest", "pip"])
def test_console_blocks_start_with_a_prompt(blocks, name):
    """In a console block what is typed stands behind `$`, so that answers are told apart."""
    bare = [
        block.id
        for block in blocks
        if block.language == "console"
        and any(line.startswith(f"{name} ") for line in block.text.splitlines())
    ]
    assert bare == []
