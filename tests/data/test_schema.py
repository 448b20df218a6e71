"""A schema says what a table looks like."""

import json

import numpy as np
import pandas as pd
import pytest

from mlguard.data.frames import read_frame
from mlguard.data.schema import Feature, TableSchema, infer_schema


def kinds(frame):
    return {one.name: one.kind for one in infer_schema(frame).columns}


def test_kinds_are_found_by_meaning():
    """Each kind of column is recognised, with its range or categories."""
    frame = pd.DataFrame(
        {
            "amount": [1.5, np.nan, 3.0, 2.0],
            "count": [1, 2, 3, 9],
            "paid": [True, False, True, True],
            "paid_or_not": [True, None, False, True],
            "colour": ["red", "blue", "red", None],
            "seen": ["2026-01-31", "2026-02-01T10:00:00Z", "2026-02-01 10:00", None],
            "stamp": pd.to_datetime(["2026-01-31", "2026-02-01", None, None]),
        }
    )
    schema = infer_schema(frame)
    assert kinds(frame) == {
        "amount": "number",
        "count": "integer",
        "paid": "boolean",
        "paid_or_not": "boolean",
        "colour": "category",
        "seen": "time",
        "stamp": "time",
    }
    assert (schema["amount"].low, schema["amount"].high) == (1.5, 3.0)
    assert schema["amount"].missing_share == 0.25
    assert schema["colour"].categories == ("blue", "red")
    assert schema["stamp"].high - schema["stamp"].low == 86_400


def test_many_different_texts_are_text():
    """Names are text, codes that come again are categories."""
    names = pd.DataFrame({"x": [f"name {one}" for one in range(100)]})
    codes = pd.DataFrame({"x": [f"code {one % 40}" for one in range(100)]})
    assert (kinds(names), kinds(codes)) == ({"x": "text"}, {"x": "category"})


def test_numbers_that_look_like_times_are_categories():
    """Only ISO 8601 with dashes is a time."""
    assert kinds(pd.DataFrame({"x": ["20260131", "20260201"]})) == {"x": "category"}
    assert kinds(pd.DataFrame({"x": ["2026-01-31", "2026-13-01"]})) == {"x": "category"}


@pytest.mark.parametrize("values", [[], [None, None], [np.nan], [np.inf, -np.inf], [1.0]])
def test_columns_with_nothing_in_them_are_described(values):
    """Empty, missing, infinite and single values make a schema that strict JSON can hold."""
    schema = infer_schema(pd.DataFrame({"x": values}))
    json.dumps(schema.to_json(), allow_nan=False)
    assert schema.names == ("x",)


def test_the_json_round_trip_keeps_everything():
    """A schema and a feature come back from JSON equal."""
    schema = infer_schema(pd.DataFrame({"a": [1.0, 2.0], "c": ["x", None]}))
    assert TableSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    feature = schema["c"].feature
    assert feature == Feature("c", "category", categories=("x",), missing=True)
    assert Feature.from_json({**feature.to_json(), "later": 1}) == feature


def test_an_unknown_column_is_a_key_error():
    """A schema has only the columns of its table."""
    with pytest.raises(KeyError):
        infer_schema(pd.DataFrame({"a": [1]}))["b"]


def test_titanic_is_described_as_it_is(shared_data):
    """The published counts of missing cells and the obvious kinds."""
    frame = read_frame(str(shared_data / "quality/titanic/titanic.csv.gz"))
    schema = infer_schema(frame)
    missing = {one.name: round(one.missing_share * 891) for one in schema.columns}
    assert {key: n for key, n in missing.items() if n} == {"Age": 177, "Cabin": 687, "Embarked": 2}
    assert schema["Sex"].categories == ("female", "male")
    assert (schema["Name"].kind, schema["Pclass"].kind, schema["Fare"].kind) == (
        "text",
        "integer",
        "number",
    )
