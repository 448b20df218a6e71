"""`mlguard fairness` as it is typed: exit codes, one document, what fits on the screen."""

import re

import pytest

IMPACT = """
[gate.fairness.delayed_impact]
success = 75
failure = -150
"""
#: Words that are no finding.
NEVER = re.compile(r"\b(unbiased|biased|unfair|is fair|safe)\b", re.IGNORECASE)


@pytest.fixture
def mlguard(in_process):
    """What is asked here is what a command says, not what a process does."""
    return in_process


def add(folder, text):
    with (folder / "serving/credit/app.toml").open("a") as file:
        file.write(text)


@pytest.mark.parametrize(
    "words",
    [
        ("--by", "sex"),
        ("--mitigate", "thresholds"),
        ("--mitigate", "reweighing"),
        ("--write", "max_utility"),
    ],
)
def test_it_fits_the_screen_and_ends_with_the_next_command(mlguard, lender, words):
    """80 columns, words that state what was measured, and what to type next."""
    add(lender, IMPACT)
    done = mlguard("fairness", "credit", *words, folder=lender)
    assert done.code == 0, done.err
    assert max(len(line) for line in done.out.splitlines()) <= 80
    assert not NEVER.search(done.out)
    assert "next: mlguard " in done.out


def test_the_figures_are_read_group_by_group(mlguard, lender_folder):
    """Each group has its row, with intervals, and a row says by how much they differ."""
    done = mlguard("fairness", "credit", folder=lender_folder)
    lines = done.out.splitlines()
    assert re.search(r"^  F\s+1,\d{3}  0\.\d\d \[0\.\d\d, 0\.\d\d\]", done.out, re.MULTILINE)
    assert sum(line.startswith("  differs by") for line in lines) == 2
    assert "FNR: refused where the truth is yes" in done.out


def test_the_policies_are_compared(mlguard, lender):
    """Every policy has its row per group; a lot has its mark, and harm its words."""
    add(lender, IMPACT.replace("75", "5"))
    done = mlguard("fairness", "credit", "--thresholds", folder=lender)
    for policy in (
        "max_utility",
        "max_utility_per_group",
        "demographic_parity",
        "equal_opportunity",
    ):
        assert f"({policy})" in done.out
    assert "~" in done.out
    assert "✗ active harm: the mean score of F and M falls" in done.out


def test_the_document_is_strict_and_whole(mlguard, lender, tmp_path):
    """--json prints one document with figures, policies, candidate and pictures."""
    done = mlguard(
        "fairness", "credit", "--thresholds", "--mitigate", "thresholds", "--json",
        "--plots", tmp_path / "plots", folder=lender,
    )  # fmt: skip
    assert done.code == 0, done.err
    document = done.document
    assert (document["command"], document["exit_code"], document["changed"]) == (
        "fairness",
        0,
        False,
    )
    assert [one["by"] for one in document["attributes"]] == ["sex"]
    assert len(document["thresholds"][0]["policies"]) == 4
    assert document["mitigated"]["accuracy"]["n"] == 1500
    assert all((tmp_path / "plots" / one["file"]).exists() for one in document["plots"])


def test_what_cannot_be_done_exits_2(mlguard, lender_folder):
    """A policy per group without the word of people: what is wrong, and what to do."""
    done = mlguard("fairness", "credit", "--write", "equal_opportunity", folder=lender_folder)
    assert done.code == 2
    assert "groups_affect_decisions" in done.err
    assert "next:" in done.err


def test_an_unknown_policy_is_refused_with_those_there_are(mlguard, lender_folder):
    """The option lists what it takes."""
    done = mlguard("fairness", "credit", "--write", "best", folder=lender_folder)
    assert done.code == 2
    assert "equal_opportunity" in done.err


def test_a_candidate_elsewhere_is_named_in_what_comes_next(mlguard, lender):
    """The next command is about the same model file."""
    file = lender / "other.skops"
    file.write_bytes((lender / "serving/credit/model.skops").read_bytes())
    done = mlguard("fairness", "credit", "--model", "other.skops", folder=lender)
    assert done.out.rstrip().endswith(
        "next: mlguard fairness credit --model other.skops --thresholds"
    )


@pytest.mark.soak
def test_a_mitigated_model_goes_through_the_gate(mlguard, lender):
    """The command that is offered runs, and judges the new file."""
    made = mlguard("fairness", "credit", "--mitigate", "reweighing", "--json", folder=lender)
    words = made.document["next_step"].split()[1:]
    judged = mlguard(*words, "--json", folder=lender)
    assert judged.code in (0, 1)
    assert judged.document["checks"]
