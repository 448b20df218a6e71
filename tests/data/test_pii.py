import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.data.pii import find_personal_data, luhn


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("note", ["call back", "write to ann.lee@example.co.uk please", "nothing"], "mail"),
        ("pay", ["4111 1111 1111 1111", "5500-0000-0000-0004"], "card"),
        ("pay", ["378282246310005"], "card"),
        ("ref", ["DE89 3704 0044 0532 0130 00"], "iban"),
        ("ssn", ["536-90-4399", "078-05-1120"], "national_id"),
        ("x", ["AB 12 34 56 C", "CE123456A"], "national_id"),
        ("x", ["12345678Z"], "national_id"),
        ("x", ["1 84 12 76 451 089 46"], "national_id"),
        ("x", ["+49 89 1234567", "+1 (212) 555-0100"], "phone"),
        ("x", ["(212) 555-0100", "212-555-0199"], "phone"),
        ("PhoneNumber", ["2053258100", "2567418000"], "phone"),
        ("passenger", ["Braund, Mr. Owen Harris", "Heikkinen, Miss. Laina"], "name"),
        ("first_name", ["Anna", "Petra", "Xq"], "name"),
        ("who", ["Maria Rossi", "Peter Schmidt", "Ann Bee"], "name"),
    ],
)
def test_personal_data_is_recognised(name, values, kind):
    """Each kind is found in its usual spellings."""
    found = find_personal_data(name, values)
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("city", ["Ulm", "Bonn", "San Jose", "Charlotte"]),
        ("amount", ["12.50", "1999", "4111"]),
        ("at", ["2024-01-31", "2024-02-01T12:00:00", "31.12.2024"]),
        ("zip", ["35233", "89073"]),
        ("id", ["4111111111111112", "1234567890123456", "9999999999999999"]),
        ("code", ["scip-card-2", "AB-12", "000-00-0000"]),
        ("version", ["10.2.3.4", "2024.11.05"]),
        ("measure", ["surgery patients who were given an antibiotic by james at the right time"]),
        ("handle", ["@home", "a@b"]),
        ("count", [str(one) for one in range(1000)]),
        ("epoch", [str(1_700_000_000 + one) for one in range(1000)]),
    ],
)
def test_other_data_is_left_alone(name, values):
    """Towns, amounts, dates, codes and numbers with a wrong check digit are nobody's."""
    assert find_personal_data(name, values) is None


def test_nothing_is_found_in_nothing():
    """A column without a value holds no personal data."""
    assert find_personal_data("name", []) is None


@given(st.from_regex(r"[0-9]{12,18}", fullmatch=True))
def test_luhn_knows_every_single_wrong_digit(digits):
    """Exactly one check digit is right for a number."""
    assert sum(luhn(f"{digits}{last}") for last in range(10)) == 1


def test_real_columns_are_told_apart(shared_data):
    """Names of passengers and defendants and hospitals' phones are found; nothing else is."""
    expected = {
        "quality/titanic/titanic.csv.gz": {"Name": "name"},
        "quality/hospital/clean.csv": {"PhoneNumber": "phone"},
        "quality/nyc_taxi_2019/yellow_tripdata_sample_2019-01.csv.gz": {},
        "fairness/compas/compas-scores-two-years.csv.gz": {"name": "name", "first": "name"},
    }
    for file, columns in expected.items():
        frame = pd.read_csv(shared_data / file).head(1000)
        found = {
            name: one.kind
            for name in frame.columns
            if frame[name].dtype.kind != "f"
            and (one := find_personal_data(name, frame[name].dropna().astype(str).tolist()))
        }
        found.pop("last", None)  # some surnames are given names
        assert found == columns, file
