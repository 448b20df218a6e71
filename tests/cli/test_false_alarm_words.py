"""How often monitors may be wrong, as people count."""

import pytest

from mlguard.cli.status import false_alarm_words
from mlguard.deploy.false_alarms import FalseAlarms, WindowRate


@pytest.mark.parametrize(
    ("labels_per_day", "said"),
    [
        # 100,000 labels to a false alarm.
        (100.0, "at most one in 1,000 days (100 labels a day)"),
        (3_400.0, "at most 2 in 30 days (3,400 labels a day)"),
        (6_000_000.0, "at most 1,800 in 30 days (6,000,000 labels a day)"),
    ],
)
def test_alarms_are_so_many_in_a_month_or_one_in_so_many_days(labels_per_day, said):
    """Rare ones by the days between them, others by the month; never with an exponent."""
    found = FalseAlarms(labels_per_day=labels_per_day, average_run_length=100_000.0)
    (words,) = false_alarm_words(found)
    assert words.endswith(said)


def test_windows_say_what_would_have_to_be_true():
    """The bound of monitors that judge windows holds where every value stands at its limit."""
    rates = [
        WindowRate(monitor="data_drift", windows_per_day=1_000, per_window=0.05, alert_after=1),
        WindowRate(monitor="service", windows_per_day=134, per_window=0.05, alert_after=1),
    ]
    found = FalseAlarms(labels_per_day=0.0, average_run_length=None, windows=tuple(rates))
    (words,) = false_alarm_words(found)
    assert "at its very limit" in words
    assert words.endswith("at most 1,701 in 30 days (1,134 windows a day)")
    calm = FalseAlarms(
        labels_per_day=0.0,
        average_run_length=None,
        windows=(WindowRate(monitor="service", windows_per_day=1, per_window=0.05, alert_after=3),),
    )
    (words,) = false_alarm_words(calm)
    assert "at most one in 8,000 days" in words
