import sys

import pytest

from mlguard.checks.declaration import (
    Declaration,
    Item,
    declare_all,
    families,
    judge,
    policy_of,
)
from mlguard.checks.evidence import Subject
from mlguard.config import DataQualityGate, load_app, load_project
from mlguard.results import CheckResult, Enforcement, Verdict
from mlguard.testing.contracts import check_family


def names(project):
    settings = load_app(load_project(project.root), "credit")
    declared = declare_all(settings, project.root)
    return [item.name for item in declared.items], declared.not_applicable


def test_a_bare_app_has_its_default_checks(bare_project):
    """Schema, fairness and baseline are in force when nothing is declared."""
    items, absent = names(bare_project)
    assert items == [
        "data_quality.schema",
        "data_quality.missing",
        "data_quality.ranges",
        "data_quality.categories",
        "data_quality.constants",
        "data_quality.balance",
        "data_quality.duplicates",
        "data_quality.overlap",
        "data_quality.leakage",
        "fairness.false_positive_rate_difference[sex]",
        "fairness.false_negative_rate_difference[sex]",
        "baseline.beats[majority]",
        "baseline.no_worse_than[live]",
        "privacy.pii",
        "privacy.proxies[sex]",
    ]
    assert absent == ("data_quality.expectations: no suite in checks/credit/expectations/*.json",)


def test_what_does_not_apply_is_named(bare_project):
    """Without attributes and training rows their checks are no items, and are named."""
    base = (bare_project.app / "app.toml").read_text()
    bare_project.settings(
        "", base.replace('sensitive = "sex"', "").replace('train = "train.csv"', "")
    )
    items, absent = names(bare_project)
    assert "data_quality.missing" not in items
    assert not [one for one in items if one.startswith("fairness")]
    assert "fairness: [data] sensitive names no attribute" in absent
    assert "data_quality.overlap: [data] train names no training rows" in absent


def test_a_check_can_be_switched_off(bare_project):
    """A check that app.toml switches off is no item, and the summary says who did it."""
    bare_project.settings(
        "[gate.data_quality.leakage]\nenabled = false\n[gate.fairness]\nenabled = false\n"
    )
    items, absent = names(bare_project)
    assert "data_quality.leakage" not in items
    assert "data_quality.leakage: switched off in app.toml" in absent
    assert "fairness: switched off in app.toml" in absent


def test_only_schema_and_expectations_block_by_default(bare_project):
    """The other data-quality checks warn unless app.toml says otherwise, family-wide or alone."""
    settings = load_app(load_project(bare_project.root), "credit")
    declared = {one.name: one for one in declare_all(settings, bare_project.root).items}
    assert declared["data_quality.schema"].policy.enforcement is Enforcement.BLOCK
    assert declared["data_quality.leakage"].policy.enforcement is Enforcement.WARN
    assert declared["baseline.beats[majority]"].policy.enforcement is Enforcement.BLOCK
    written = DataQualityGate.model_validate({"enforcement": "block"})
    assert policy_of(written, "leakage", default=Enforcement.WARN).enforcement == "block"
    narrow = DataQualityGate.model_validate({"leakage": {"enforcement": "block"}})
    assert policy_of(narrow, "leakage", default=Enforcement.WARN).enforcement == "block"
    assert policy_of(narrow, "missing", default=Enforcement.WARN).enforcement == "warn"
    other_key = DataQualityGate.model_validate({"leakage": {"decide": "proof"}})
    assert policy_of(other_key, "leakage", default=Enforcement.WARN).enforcement == "warn"


def test_declaring_loads_no_data(bare_project):
    """Collecting is cheap: no data file exists here, and nothing asks for one."""
    items, _ = names(bare_project)
    assert items


def test_items_that_share_a_name_are_numbered(bare_project):
    """Two expectations of one type on one column are two items."""
    one = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age"}}
    bare_project.suite(one, one)
    items, _ = names(bare_project)
    assert "data_quality.expect_column_values_to_not_be_null[age]" in items
    assert "data_quality.expect_column_values_to_not_be_null[age#2]" in items


class Broken:
    """Raises wherever it can."""

    def declare(self, settings, project_root):
        raise RuntimeError("cannot declare")

    def run(self, item, subject):
        raise AssertionError


class Careless:
    """Claims another family's name, and forgets to return."""

    def declare(self, settings, project_root):
        return Declaration(items=(Item(id="baseline.mine"), Item(id="careless.nothing")))

    def run(self, item, subject):
        return None


def registered(monkeypatch, **classes):
    from mlguard import plugins

    monkeypatch.setattr(plugins, "found", lambda group: dict.fromkeys(classes))
    monkeypatch.setattr(plugins, "load", lambda group, name: classes[name])
    families.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_families():
    yield
    families.cache_clear()


def test_a_family_that_cannot_declare_is_an_errored_item(monkeypatch, bare_project):
    """A family that raises while declaring closes the gate by name."""
    registered(monkeypatch, broken=Broken)
    settings = load_app(load_project(bare_project.root), "credit")
    (item,) = declare_all(settings, bare_project.root).items
    result = judge(item, bare_project.subject(), clock=lambda: 0.0)
    assert item.id == "broken.declare"
    assert result.verdict is Verdict.ERRORED
    assert result.blocks
    assert "cannot declare" in result.summary
    assert "RuntimeError" in result.details["traceback"]


def test_a_family_cannot_answer_for_another(monkeypatch, bare_project):
    """An item that claims another family's name, or returns nothing, is ERRORED."""
    registered(monkeypatch, careless=Careless)
    settings = load_app(load_project(bare_project.root), "credit")
    claimed, forgotten = declare_all(settings, bare_project.root).items
    subject = bare_project.subject()
    assert judge(claimed, subject, clock=lambda: 0.0).verdict is Verdict.ERRORED
    assert "does not start with" in judge(claimed, subject, clock=lambda: 0.0).summary
    assert judge(forgotten, subject, clock=lambda: 0.0).verdict is Verdict.ERRORED


def test_something_that_is_no_family_is_refused(monkeypatch):
    """An entry point that names no family of checks is an error that names it."""
    registered(monkeypatch, strange=dict)
    with pytest.raises(Exception, match="'strange' is dict"):
        families()


def test_a_duration_is_measured(bare_project):
    """Every result says how long its judgement took."""
    ticks = iter([1.0, 3.5])
    item = Item(id="x.y", parameters={"raised": ValueError("no")})
    assert judge(item, bare_project.subject(), clock=lambda: next(ticks)).duration_s == 2.5


@pytest.mark.parametrize("name", ["data_quality", "fairness", "baseline"])
def test_the_built_in_families_keep_the_contract(name, project):
    """Our own families pass what we ask of other people's."""
    results = check_family(name, families()[name], project.subject())
    assert all(isinstance(one, CheckResult) for one in results)


def test_the_contract_catches_a_careless_family(project):
    """The contract for authors finds an item that belongs to nobody."""
    with pytest.raises(AssertionError, match="does not start with"):
        check_family("careless", Careless(), project.subject())


def test_importing_the_room_is_cheap():
    """The public names load neither pandas nor Great Expectations."""
    import subprocess

    code = (
        "import sys, mlguard.checks as room\n"
        "[getattr(room, name) for name in room.__all__]\n"
        "heavy = {'pandas', 'sklearn', 'great_expectations', 'scipy', 'sqlalchemy', 'evidently'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_subject_is_cheap_until_asked(bare_project):
    """Making a subject reads no file."""
    assert isinstance(bare_project.subject(), Subject)
