"""What must hold of a model that lends, beside what ``app.toml`` demands of every version."""

from mlguard.checks import assert_no_gap


def test_men_and_women_who_would_repay_are_refused_alike(candidate, test):
    """Women and men who would repay are refused at the same rate, give or take 5 points.

    Half of what ``app.toml`` allows; with thousands of each in the test data it can be shown.
    """
    assert_no_gap(candidate, test, metric="false_negative_rate", by="sex", at_most=0.05)


def test_more_debts_never_help(candidate, test):
    """The same applicant with more debts is never lent to where fewer debts were refused."""
    indebted = test.assign(debt_ratio=(test["debt_ratio"] + 0.2).clip(upper=1))
    before, after = candidate.predict(test).labels, candidate.predict(indebted).labels
    assert not (after > before).any()


def test_the_purpose_of_a_loan_decides_little(candidate, test):
    """Asking for a car instead of a school changes the answer of fewer than one in twenty."""
    car = candidate.predict(test.assign(purpose="car")).labels
    school = candidate.predict(test.assign(purpose="education")).labels
    assert (car != school).mean() < 0.05
