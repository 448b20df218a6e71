"""Every promise on the page of faults names a test that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_promise_is_proved_by_a_test_that_is_there():
    """Each row of each table names at least one, by file and name."""
    page = (ROOT / "docs/explanation/promises.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| fault ")]
    assert len(promises) > 50
    for row in promises:
        named = _TEST.findall(row)
        assert named, f"nothing proves: {row}"
        for file, name in named:
            source = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), (file, name)
