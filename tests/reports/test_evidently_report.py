"""Evidently's own report, written by a process that ends."""

import numpy as np
import pyarrow as pa
import pytest

from mlguard.reports.drawing import DrawingError, write_evidently


@pytest.mark.slow
def test_evidently_writes_its_page_beside_ours(tmp_path):
    """Numbers and categories, with a column that only one side has."""
    random = np.random.default_rng(0)

    def table(shift, **more):
        columns = {"age": random.normal(40 + shift, 9, 200), "home": random.choice(["a", "b"], 200)}
        return pa.table({**columns, **more})

    page = write_evidently(
        table(0), table(9, extra=random.normal(size=200)), tmp_path / "deep" / "evidently.html"
    )
    text = page.read_text(encoding="utf-8")
    assert "<html" in text
    assert "age" in text
    assert [one.name for one in page.parent.iterdir()] == ["evidently.html"]


@pytest.mark.soak
def test_evidently_failing_is_an_error_that_costs_only_its_page(tmp_path):
    """No shared column: nothing to compare, and ours goes on without it."""
    with pytest.raises(DrawingError):
        write_evidently(pa.table({"a": [1.0]}), pa.table({"b": [1.0]}), tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
