"""Bodies as people send them, and what the reader makes of them."""

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.data.schema import Feature
from mlguard.serving.inputs import BadRequestError, RowReader, read_request

TABLE = (
    Feature("income", "number", 0.0, 100.0),
    Feature("children", "integer", 0, 5),
    Feature("owner", "boolean"),
    Feature("region", "category", categories=("north", "south")),
    Feature("note", "text"),
    Feature("at", "time"),
)
ROW = {
    "income": 52.5,
    "children": 2,
    "owner": True,
    "region": "north",
    "note": "hello",
    "at": "2026-01-31T12:00:00Z",
}


def numbers(n):
    return tuple(Feature(f"x{index}", "number") for index in range(n))


def read(kind, value, features=(), *, strict=False, key="input"):
    body = value if isinstance(value, bytes) else json.dumps({key: value}).encode()
    return RowReader(kind, features, strict=strict).read(read_request(body))


def refused(kind, value, features=(), *, strict=False, key="input") -> str:
    with pytest.raises(BadRequestError) as caught:
        read(kind, value, features, strict=strict, key=key)
    assert caught.value.kind == "Json error"
    assert caught.value.cause.startswith("Error parsing JSON: ")
    return caught.value.cause


def test_numbers_come_as_floats():
    """Whole numbers are doubles too, unless strict."""
    rows = read("doubles", [1, 2.5], numbers(2))
    assert rows == [[1.0, 2.5]]
    assert all(type(value) is float for value in rows[0])


def test_strict_doubles_must_look_like_reals():
    """With strict_types 2 is no double and 2.0 is, as in Clipper."""
    assert read("doubles", b'{"input": [1.0, 25e-1]}', numbers(2), strict=True) == [[1.0, 2.5]]
    assert "value 0 (x0) is 1" in refused("doubles", [1, 2.5], numbers(2), strict=True)


def test_floats_keep_to_32_bits():
    """A number beyond float32 is refused, naming it."""
    assert read("floats", [1e38], numbers(1)) == [[1e38]]
    assert "value 0 (x0) does not fit 32 bits" in refused("floats", [1e39], numbers(1))


def test_ints_are_whole_and_in_range():
    """2.0 is whole; 2.5 is not; 64 bits otherwise, 32 when strict."""
    assert read("ints", b'{"input": [2.0, 3]}', numbers(2)) == [[2, 3]]
    assert "not whole" in refused("ints", [2.5], numbers(1))
    assert read("ints", [2**40], numbers(1)) == [[2**40]]
    assert "64 bits" in refused("ints", [2**63], numbers(1))
    assert "32 bits" in refused("ints", [2**31], numbers(1), strict=True)
    assert read("ints", [-(2**31)], numbers(1), strict=True) == [[-(2**31)]]
    refused("ints", b'{"input": [2.0]}', numbers(1), strict=True)


@pytest.mark.parametrize("kind", ["doubles", "floats", "ints"])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        [True],
        ["1"],
        [None],
        [[1]],
        {"x0": 1},
        "1",
        1,
        None,
        b'{"input": [NaN]}',
        b'{"input": [Infinity]}',
        b'{"input": [-Infinity]}',
        b'{"input": [1e999]}',
    ],
    ids=repr,
)
def test_what_is_no_number_is_refused(kind, strict, value):
    """Booleans, strings, nulls, nested and non-finite values are no numbers."""
    refused(kind, value, numbers(1), strict=strict)


@pytest.mark.parametrize("kind", ["doubles", "floats", "ints", "table"])
def test_the_length_must_be_the_models(kind):
    """Too few and too many values are refused with both counts."""
    assert "1 values, the model takes 2" in refused(kind, [1], numbers(2))
    assert "3 values, the model takes 2" in refused(kind, [1, 2, 3], numbers(2))
    assert "takes 2" in refused(kind, [], numbers(2))


def test_any_length_goes_where_no_model_says():
    """Without a version the app still knows the type, and refuses the empty row."""
    assert read("doubles", [1, 2, 3]) == [[1.0, 2.0, 3.0]]
    refused("doubles", [])


@given(st.text())
def test_strings_arrive_byte_for_byte(text):
    """Whatever JSON can carry, lone surrogates aside, arrives as it was sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert read("strings", text) == [text]
    body = json.dumps({"input": text}, ensure_ascii=False).encode()
    assert read("strings", body) == [text]


@given(st.binary())
def test_bytes_are_base64(value):
    """Bytes survive base64 both ways."""
    assert read("bytes", base64.b64encode(value).decode()) == [value]


@pytest.mark.parametrize("text", ["*", "abc", "YWJj\n", "YQ", "YQ=", "ünï"])
def test_bad_base64_is_refused(text):
    """Characters, padding and length are all checked."""
    assert "base64" in refused("bytes", text)


@pytest.mark.parametrize("kind", ["strings", "bytes"])
@pytest.mark.parametrize("value", [1, None, ["a"], {"a": "b"}, True], ids=repr)
def test_what_is_no_string_is_refused(kind, value):
    """A row of these types is one string, not a list of one."""
    refused(kind, value)


def test_a_table_row_comes_by_name_or_by_position():
    """Both forms give the same row; names the model does not use are ignored."""
    by_name = read("table", ROW | {"sex": "F"}, TABLE)
    by_position = read("table", list(ROW.values()), TABLE)
    assert by_name == by_position == [list(ROW.values())]


def test_missing_cells_are_null():
    """null is a missing value of any column; an absent column is an error that names it."""
    assert read("table", dict.fromkeys(ROW), TABLE) == [[None] * len(TABLE)]
    without = {key: value for key, value in ROW.items() if key != "region"}
    assert "column 'region' missing" in refused("table", without, TABLE)
    assert "columns 'income', 'children'" in refused(
        "table", {"owner": True, "region": "a", "note": "", "at": None}, TABLE
    )


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("income", "52", "expected a number, got"),
        ("income", True, "expected a number"),
        ("income", [1], "expected a number"),
        ("children", 2.5, "expected a whole number, got 2.5"),
        ("children", 2**63, "expected a whole number"),
        ("children", False, "expected a whole number"),
        ("owner", "yes", "expected true or false"),
        ("owner", 2, "expected true or false"),
        ("region", 3, "expected a string, got 3"),
        ("note", {"a": 1}, "expected a string"),
        ("at", "yesterday", "expected a time like"),
        ("at", 1767225600, "expected a time like"),
        ("note", 10**500, "at `$.input`"),
    ],
)
def test_a_wrong_cell_names_its_column(column, value, said):
    """The 400 says which column, what was expected, and what came."""
    cause = refused("table", ROW | {column: value}, TABLE)
    assert said in cause or column in cause
    if "$" not in cause:
        assert f"column '{column}'" in cause


def test_strict_tables_convert_nothing():
    """Loose: 2.0 is a whole number and 1 is true; strict: neither."""
    loose = b'{"input": [5, 2.0, 1, "north", "", null]}'
    assert read("table", loose, TABLE) == [[5.0, 2, True, "north", "", None]]
    strict = json.dumps({"input": [5, 2, 1, "north", "", None]}).encode()
    assert "column 'owner'" in refused("table", strict, TABLE, strict=True)
    assert "column 'children'" in refused("table", loose, TABLE, strict=True)


def test_a_long_value_is_cut_in_the_message():
    """An error repeats a little of what came, not all of it."""
    assert len(refused("table", ROW | {"income": "x" * 100_000}, TABLE)) < 200


def test_rows_outside_the_reference_are_marked_not_refused():
    """An unseen category or a missing cell is answered, and not held against the model."""
    reader = RowReader("table", TABLE)
    assert reader.fits(list(ROW.values()))
    assert not reader.fits(list((ROW | {"region": "west"}).values()))
    assert not reader.fits(list((ROW | {"income": None}).values()))


def test_one_bad_row_refuses_the_batch_and_is_named():
    """Place and reason of the first bad row."""
    cause = refused("doubles", [[1, 2], [3], [4, 5]], numbers(2), key="input_batch")
    assert "input_batch[1]: 1 values, the model takes 2" in cause
    cause = refused("doubles", [[1, 2], [3, None]], numbers(2), key="input_batch")
    assert "`$.input_batch[1][1]`" in cause


def test_input_wins_over_input_batch():
    """With both, the single row counts and the other is not even looked at."""
    request = read_request(b'{"input_batch": "nonsense", "input": [1.0]}')
    assert not request.batch
    assert RowReader("doubles").read(request) == [[1.0]]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b'{"input": [1,}', "malformed"),
        (b"[1, 2]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b'"x"', "Expected `object`"),
        (b"{}", "neither `input` nor `input_batch`"),
        (b'{"inputs": [1]}', "neither `input` nor `input_batch`"),
        (b'{"input": [1]} x', "malformed"),
        (b'\xff{"input": [1]}', "malformed"),
        (b'{"input": [1], "version": [1]}', "version"),
        (b'{"input": [1], "uid": {}}', "uid"),
        (b'{"input": [1], "groups": "F"}', "groups"),
        (b'{"input": [1], "groups": {"sex": []}}', "groups"),
        (b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}", ""),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bodies_that_cannot_be_read(body, said):
    """Malformed JSON, other than objects, missing keys, wrong types: Clipper's words."""
    with pytest.raises(BadRequestError) as caught:
        RowReader("doubles").read(read_request(body))
    assert caught.value.cause.startswith("Error parsing JSON: ")
    assert said in caught.value.cause


def test_invalid_utf8_in_a_string_is_refused():
    """A string that is no UTF-8 is a 400, not a 500."""
    with pytest.raises(BadRequestError):
        RowReader("strings").read(read_request(b'{"input": "\xff"}'))


def test_optional_keys_are_read():
    """version and uid may be numbers; groups become strings; null means absent."""
    request = read_request(
        b'{"input": [1], "version": 3, "uid": 7, "groups": {"sex": "F", "age": 4, "x": null}}'
    )
    assert (request.version, request.uid) == ("3", "7")
    assert request.groups == {"sex": "F", "age": "4"}
    empty = read_request(b'{"input": [1], "version": null, "uid": null, "groups": null, "z": 1}')
    assert (empty.version, empty.uid, empty.groups) == (None, None, {})


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_no_input_breaks_a_reader(value):
    """Any JSON at all is read or refused; nothing else is raised."""
    body = json.dumps({"input": value}).encode()
    for kind in ("doubles", "floats", "ints", "strings", "bytes", "table"):
        for features in ((), TABLE if kind == "table" else numbers(2)):
            with contextlib.suppress(BadRequestError):
                RowReader(kind, features).read(read_request(body))
