"""Rows that are unlike the data a version was accepted on: what counts, and what is done."""

import json
import math

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlguard.data.schema import Feature
from mlguard.serving.embedded import served
from mlguard.serving.row_check import RowCheck, in_words

TABLE = (
    Feature("income", "number", 20.0, 80.0, missing=True),
    Feature("children", "integer", 0, 3),
    Feature("owner", "boolean"),
    Feature("region", "category", categories=("north", "south")),
    Feature("note", "text"),
)
USUAL = [50.0, 2, True, "north", "anything"]


@pytest.mark.parametrize(
    ("cells", "column", "said"),
    [
        ({0: 19.9}, "income", "19.9 is outside 20 … 80"),
        ({0: 81.0}, "income", "81.0 is outside"),
        ({1: 4}, "children", "4 is outside 0 … 3"),
        ({1: None}, "children", "is missing, and never was"),
        ({2: None}, "owner", "is missing"),
        ({3: "moon"}, "region", '"moon" is not among'),
        ({3: "x" * 1000}, "region", "…"),
    ],
)
def test_range_category_and_missing_are_told_by_column(cells, column, said):
    """One unusual cell is found, named, and shown in a few characters."""
    row = [cells.get(index, value) for index, value in enumerate(USUAL)]
    ((name, why),) = RowCheck("table", TABLE).unusual(row)
    assert name == column
    assert said in why
    assert len(why) < 100


@pytest.mark.parametrize("cells", [{}, {0: 20.0}, {0: 80.0}, {0: None}, {4: ""}, {3: "south"}])
def test_what_the_reference_had_is_usual(cells):
    """Bounds are inside, missing is usual where cells were missing, text may be anything."""
    row = [cells.get(index, value) for index, value in enumerate(USUAL)]
    assert RowCheck("table", TABLE).unusual(row) == ()


def test_numbers_strings_and_unknown_bounds():
    """Arrays of numbers are compared in order; strings and missing bounds know nothing."""
    features = (Feature("a", "number", 0.0, 1.0), Feature("b", "number"))
    check = RowCheck("doubles", features)
    assert check.unusual([0.5, 1e300]) == ()
    assert check.unusual([math.nextafter(1.0, 2.0), 0.0])[0][0] == "a"
    assert RowCheck("strings", (Feature("text", "text"),)).unusual("anything") == ()
    assert in_words([("a", "x"), ("b", "y")]) == "a: x; b: y"


def ask(table, settings_of, policy, rows):
    settings = settings_of(
        name="credit",
        app={
            "input": "table",
            "slo_ms": 5000,
            "unusual_rows": policy,
            "default_output": "-1",
        },
    )
    with served(settings, table.json, table.path) as base, httpx.Client(base_url=base) as client:
        reply = client.post("/credit/predict", content=json.dumps({"input_batch": rows}))
        metrics = client.get("/metrics").text
    families = {one.name: one for one in text_string_to_metric_families(metrics)}
    counted = {
        one.labels["column"]: one.value
        for one in families["mlguard_unusual_cells"].samples
        if one.name.endswith("_total")
    }
    return reply.json()["batch_predictions"], counted


ROWS = [[70.0, 1, True, "north"], [70.0, 9, True, "moon"]]


def test_pass_leaves_clippers_answer_alone(table, settings_of):
    """By default nothing is looked at: no further key, no count."""
    answers, counted = ask(table, settings_of, "pass", ROWS)
    assert [set(one) for one in answers] == [{"query_id", "output", "default"}] * 2
    assert counted == {}


def test_flag_answers_and_says_what_is_unusual(table, settings_of):
    """The model answers both rows; the unusual one says so, and is counted by column."""
    answers, counted = ask(table, settings_of, "flag", ROWS)
    assert [one["default"] for one in answers] == [False, False]
    assert "unusual" not in answers[0]
    assert answers[1]["unusual"].startswith("children: 9 is outside 0 … 3; region: ")
    assert counted == {"children": 1.0, "region": 1.0}


def test_default_answers_without_the_model(table, settings_of):
    """The unusual row gets the default output and why; its neighbour is answered."""
    answers, counted = ask(table, settings_of, "default", ROWS)
    assert (answers[0]["output"], answers[0]["default"]) == (1, False)
    assert (answers[1]["output"], answers[1]["default"]) == (-1, True)
    assert "unlike the data" in answers[1]["default_explanation"]
    assert "region" in answers[1]["unusual"]
    assert counted == {"children": 1.0, "region": 1.0}
