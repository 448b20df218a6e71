"""The shape of a model's inputs and outputs is found, in the right order, or refused."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from mlguard.errors import DataError, ModelFileError
from mlguard.models.schema import Feature, InputSchema, input_schema


def test_a_table_has_the_models_own_names_in_order(lender, applicants, make_settings):
    """Names and order come from the model, kinds and ranges from the data, classes from both."""
    settings = make_settings(app={"input": "table"}, data={"sensitive": ["sex"]})
    schema = input_schema(lender, applicants, settings)
    assert schema.names == ("income", "children", "owner", "job")
    assert schema.kinds == {
        "income": "number",
        "children": "integer",
        "owner": "boolean",
        "job": "category",
    }
    assert schema.features[3].categories == ("clerk", "cook")
    assert schema.features[1].low == 0.0
    assert schema.classes == ("late", "paid")
    assert (schema.input, schema.task) == ("table", "classification")


def test_without_names_all_but_the_roles_are_features(numbers, make_settings):
    """Target, sensitive attributes, time and id are no features of a model without names."""
    frame = numbers.assign(sex="F", when="2026-01-01", key=range(len(numbers)))
    model = LogisticRegression().fit(numbers[["a", "b"]].to_numpy(), numbers["y"])
    settings = make_settings(data={"sensitive": "sex", "time": "when", "id": "key"})
    schema = input_schema(model, frame, settings)
    assert schema.names == ("a", "b")
    assert schema.classes == (0, 1, 2)
    assert all(type(one) is int for one in schema.classes)


def test_the_settings_order_the_features(numbers, make_settings):
    """[data] features wins over the order of the columns."""
    model = LogisticRegression().fit(numbers[["b", "a"]].to_numpy(), numbers["y"])
    schema = input_schema(model, numbers, make_settings(data={"features": ["b", "a"]}))
    assert schema.names == ("b", "a")


def test_settings_that_contradict_the_model_are_refused(numbers, make_settings):
    """Another order than the model's, and another number of columns, name both sides."""
    named = LogisticRegression().fit(numbers[["a", "b"]], numbers["y"])
    with pytest.raises(DataError, match=r"fitted on a, b, and \[data\] features names b, a"):
        input_schema(named, numbers, make_settings(data={"features": ["b", "a"]}))
    nameless = LogisticRegression().fit(numbers[["a"]].to_numpy(), numbers["y"])
    with pytest.raises(DataError, match="fitted on 1 features, and the data has 2: a, b"):
        input_schema(nameless, numbers, make_settings())


def test_a_column_that_is_absent_names_the_nearest(numbers, make_settings):
    """The data must have the model's columns."""
    frame = numbers.rename(columns={"a": "aa"})
    model = LogisticRegression().fit(numbers[["a", "b"]], numbers["y"])
    with pytest.raises(DataError, match="no column 'a'; did you mean 'aa'"):
        input_schema(model, frame, make_settings())


def test_numbers_are_asked_of_number_inputs(applicants, numbers, make_settings):
    """doubles refuse text and say what to use; ints make integers of whole columns."""
    model = LogisticRegression().fit(numbers[["a", "b"]].to_numpy(), numbers["y"])
    settings = make_settings(data={"features": ["income", "job"]})
    with pytest.raises(DataError, match="'job' holds category") as raised:
        input_schema(model, applicants, settings)
    assert 'input = "table"' in raised.value.hint
    schema = input_schema(model, numbers, make_settings(app={"input": "ints"}))
    assert set(schema.kinds.values()) == {"integer"}


def test_strings_take_one_column(make_settings):
    """An input that is one text has one feature."""
    frame = pd.DataFrame({"text": [f"word {one}" for one in range(60)], "n": 1, "y": [0, 1] * 30})
    model = object()
    settings = make_settings(app={"input": "strings"}, data={"features": ["text"]})
    assert input_schema(model, frame, settings).names == ("text",)
    with pytest.raises(DataError, match="takes one column"):
        input_schema(model, frame, make_settings(app={"input": "strings"}))


def test_classes_come_from_the_data_where_the_model_has_none(numbers, make_settings):
    """A model without classes_ has those of the target; a regression has none."""
    classifier = SimpleNamespace(feature_names_in_=["a", "b"])
    assert input_schema(classifier, numbers, make_settings()).classes == (0, 1, 2)
    assert input_schema(classifier, numbers.drop(columns="y"), make_settings()).classes is None
    model = LinearRegression().fit(numbers[["a", "b"]], numbers["y"])
    regression = make_settings(app={"task": "regression"})
    assert input_schema(model, numbers, regression).classes is None


def test_the_json_round_trip_keeps_everything(lender, applicants, make_settings):
    """A schema comes back from JSON equal."""
    schema = input_schema(lender, applicants, make_settings(app={"input": "table"}))
    assert InputSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    plain = InputSchema("doubles", "regression", (Feature("x", "number"),))
    assert InputSchema.from_json(json.loads(json.dumps(plain.to_json()))) == plain


@pytest.mark.parametrize(
    ("model", "task", "other"),
    [
        (LinearRegression(), "classification", "regression"),
        (LogisticRegression(), "regression", "classification"),
    ],
)
def test_a_model_made_for_another_task_is_named(make_settings, numbers, model, task, other):
    """A regression declared as classification, or the reverse, is told which key to change."""
    with pytest.raises(ModelFileError, match=f"made for {other}.*task = .{task}") as found:
        input_schema(model, numbers, make_settings(app={"task": task}))
    assert f'task = "{other}"' in found.value.hint
