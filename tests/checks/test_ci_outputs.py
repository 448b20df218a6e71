"""What CI is told: annotations that cannot be forged, Markdown that always fits."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.checks.github import MOST, annotation_lines, command, guard
from mlguard.checks.markdown import MOST_BYTES, escaped, markdown, write_markdown
from mlguard.policy import gate_decision
from mlguard.results import CheckResult, Enforcement, Measurement, Verdict

HOSTILE = "a%b:c,d\r\n::error::forged\n::set-output name=x::1|`<script>\x1b[31m"


def found(name, verdict, **more):
    return CheckResult(id=name, verdict=verdict, summary=f"{name} was judged", **more)


def decision(*results):
    return gate_decision("credit", "naive.skops", results)


def test_blocking_results_are_errors_and_the_rest_are_warnings():
    """Worst first; what passed is no annotation."""
    lines = annotation_lines(
        decision(
            found("data_quality.missing", Verdict.WARNED),
            found("baseline.beats", Verdict.INCONCLUSIVE, next_step="more"),
            found("fairness.gap", Verdict.FAILED, subject="sex"),
            found("data_quality.overlap", Verdict.FAILED, enforcement=Enforcement.WARN),
            found("data_quality.schema", Verdict.PASSED),
        )
    )
    assert lines == [
        "::error title=credit fairness.gap[sex]::failed: fairness.gap was judged",
        "::error title=credit baseline.beats::undecided: baseline.beats was judged%0Anext: more",
        "::warning title=credit data_quality.overlap::failed: data_quality.overlap was judged",
        "::warning title=credit data_quality.missing::warned: data_quality.missing was judged",
    ]


@pytest.mark.parametrize("n", [10, 11, 35])
def test_there_are_at_most_ten_of_a_kind(n):
    """The tenth says how many more there are, where there are more."""
    results = [found(f"fairness.m{place}", Verdict.FAILED) for place in range(n)]
    lines = annotation_lines(decision(*results))
    assert len(lines) == MOST
    assert ("more errors are not shown" in lines[-1]) == (n > MOST)
    if n > MOST:
        assert f"{n - 9} more errors" in lines[-1]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=200))
def test_no_text_ends_a_command_or_begins_another(title, message):
    """Whatever stands in a name: one line, one command, no raw colon or comma in its title."""
    line = command("error", HOSTILE + title, HOSTILE + message)
    assert len(line.splitlines()) == 1
    properties, _, data = line.removeprefix("::error title=").partition("::")
    assert not re.search(r"[:,]", properties)
    for part in (properties, data):
        assert not re.search(r"%(?!25|0D|0A|3A|2C)", part)


def test_other_text_is_guarded_by_a_token_nobody_can_guess():
    """Commands are off while data may be printed, and on again by the same token."""
    off, on = guard()
    token = off.removeprefix("::stop-commands::")
    assert on == f"::{token}::"
    assert len(token) == 32
    assert guard() != guard()


def test_markdown_says_what_blocks_first_with_its_numbers(tmp_path):
    """Headline, why, the groups of what blocks, then all checks; appended, not overwritten."""
    failed = found(
        "fairness.gap",
        Verdict.FAILED,
        limit=0.1,
        next_step="mlguard fairness credit --thresholds",
        measurements=(
            Measurement(name="rate", group="sex=F", value=0.31, low=0.27, high=0.35, n=1204),
        ),
    )
    judged = decision(found("data_quality.schema", Verdict.PASSED), failed)
    path = tmp_path / "out" / "summary.md"
    write_markdown(judged, path)
    write_markdown(judged, path)
    text = path.read_text(encoding="utf-8")
    assert text.count("## ✗ credit: candidate naive.skops refused") == 2
    first, table = text.index("### ✗ fairness.gap"), text.index("### All checks")
    assert first < table
    assert "| sex=F | rate | 1,204 | 0.31 [0.27, 0.35] |" in text
    assert "**Next:** mlguard fairness credit --thresholds" in text
    assert "| ✓ passed | data&#95;quality.schema |" in text


def test_markdown_shows_text_and_does_not_obey_it():
    """No HTML, no link, no cell is made by a name."""
    text = escaped("a|b <img src=x> [l](http://x) `c` **d**\n# e")
    assert not re.search(r"[|<>`\[\]*\n]", text)
    assert re.search(r"[#](?!\d+;)", text) is None


def test_markdown_always_fits():
    """Twenty thousand failing checks with long names are cut, counted, and under a million."""
    results = [
        found(f"fairness.{'ü|' * 60}{place}", Verdict.FAILED, next_step="x" * 400)
        for place in range(20_000)
    ]
    text = markdown(decision(*results))
    assert len(text.encode()) < MOST_BYTES
    assert "more checks block and are not shown" in text
    assert "more checks are not shown" in text
