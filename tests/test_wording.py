"""How numbers, times and strange text are written."""

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlguard.wording import ago, count, duration, estimate, listed, moment, number, printable, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.3134, "0.31"), (0.05, "0.05"), (0.2, "0.20"), (0.00432, "0.0043"), (0.0, "0.00"),
        (1.0, "1"), (4.1, "4.1"), (12.0, "12"), (12.34, "12.3"), (1204, "1,204"),
        (-0.25, "−0.25"), (1e-9, "1e−09"), (math.nan, "undefined"), (math.inf, "∞"),
        (-math.inf, "−∞"), (None, "–"),
    ],
)  # fmt: skip
def test_numbers_have_two_or_three_digits(value, text):
    """Enough to decide by, no more than was measured."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0.31, (0.27, 0.35), "0.31 [0.27, 0.35]"),
        (0.04, (-0.02, 0.1), "0.04 [−0.02, 0.10]"),
        (0.0004, (0.0001, 0.0012), "0.0004 [0.0001, 0.0012]"),
        (0.0, (0.0, 0.0004), "0.0000 [0.0000, 0.0004]"),
        (1204.0, (1100.2, 1300.9), "1,204 [1,100, 1,301]"),
        (0.5, (0.5, 0.5), "0.50 [0.50, 0.50]"),
        (0.5, (None, None), "0.50"),
        (None, None, "–"),
    ],
)
def test_an_interval_ends_at_the_same_place_as_its_estimate(value, interval, text):
    """The width of the interval says how many digits mean something."""
    assert estimate(value, interval) == text


@given(st.floats() | st.none(), st.tuples(st.floats(), st.floats()) | st.none())
def test_every_number_can_be_written(value, interval):
    """Nothing that a monitor measures breaks a sentence."""
    assert estimate(value, interval, 5).isprintable()


def test_times_and_stretches_have_one_unit():
    """UTC for when, one unit for how long."""
    assert moment(0.0) == "1970-01-01 00:00 UTC"
    assert [duration(one) for one in (0, 59, 90, 3600, 7200, 172800)] == [
        "0 s", "59 s", "90 s", "1 h", "2 h", "2 d",
    ]  # fmt: skip
    assert ago(0.0, 10_800.0) == "3 h ago"
    assert ago(None, 0.0) == "–"


def test_shares_and_counts_are_written_for_sentences():
    """Thousands are separated; small shares keep their digits."""
    assert count(28512) == "28,512"
    assert [share(one) for one in (0.0, 0.00042, 0.5, None)] == ["0 %", "0.042 %", "50 %", "–"]


@given(st.text(max_size=500), st.integers(min_value=2, max_value=50))
def test_printable_text_is_short_and_does_nothing(text, limit):
    """One line, bounded, without control characters or marks that turn the direction."""
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert not any(unicodedata.category(one) in ("Cc", "Cf") for one in shown)


def test_lists_do_not_get_long():
    """The rest is counted."""
    assert listed([]) == "–"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed([str(one) for one in range(9)]) == "0, 1, 2, 3, 4 and 4 more"
