"""Rows that reach the log as columns are the rows that reach it one by one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.data.log_columns import FIXED_COLUMNS, LogSchema
from mlguard.data.schema import Feature

FEATURES = (
    Feature("a", "number"),
    Feature("b", "integer"),
    Feature("c", "boolean"),
    Feature("d", "category"),
)
TEXT = st.text(max_size=4)
FIXED = {
    "query_id": st.integers(1, 2**53 - 1),
    "time": st.floats(0, 2e9),
    "generation": st.integers(0, 2**40),
    "default": st.booleans(),
    "explanation": st.none() | TEXT,
    "output": TEXT,
    "score": st.none() | st.floats(),
    "uid": st.none() | TEXT,
    "groups": st.none() | st.dictionaries(st.sampled_from(["sex", "d"]), TEXT),
    "latency_ms": st.floats(0, 1e6),
    "valid": st.booleans(),
    "inputs_kept": st.none() | st.booleans(),
}
CELLS = st.tuples(
    st.none() | st.floats() | st.integers(-5, 5),
    st.none() | st.integers(-(2**70), 2**70) | st.just(2.0) | st.just(2.5),
    st.none() | st.booleans(),
    st.none() | TEXT,
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.fixed_dictionaries(FIXED), CELLS), min_size=1, max_size=6),
    st.sampled_from([(), ("d",), ("uid", "score", "sex", "a")]),
    st.booleans(),
)
def test_columns_and_rows_make_the_same_batch(rows, redact, inputs):
    """Whatever the values: nulls, mixed types, numbers too large, redacted columns."""
    schema = LogSchema(FEATURES, frozenset(redact), inputs)
    one_by_one = schema.batch([fixed | {"features": list(cells)} for fixed, cells in rows])
    columns = {name: [fixed[name] for fixed, _ in rows] for name in FIXED_COLUMNS}
    by_columns = schema.columns(columns, [cells for _, cells in rows])
    assert by_columns.schema == one_by_one.schema
    assert by_columns.equals(one_by_one) or str(by_columns.to_pylist()) == str(
        one_by_one.to_pylist()
    )
