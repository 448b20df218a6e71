import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mlguard.checks import assert_no_leakage, assert_no_pii, leakage, privacy
from mlguard.checks.anonymity import k_anonymity
from mlguard.checks.evidence import JudgedModel
from mlguard.checks.explain import CheckFailedError
from mlguard.checks.proxies import proxies
from mlguard.config import AnonymityCheck, PiiCheck, ProxiesCheck
from mlguard.errors import DataError
from mlguard.results import Enforcement, Verdict


class Always:
    """Answers one class."""

    def predict(self, rows):
        return np.zeros(len(rows))


def people(n=1500, seed=0):
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M"], n)
    return pd.DataFrame(
        {
            "height": (np.where(sex == "F", 166, 179) + rng.normal(0, 6, n)).round(1),
            "income": rng.normal(3000, 500, n).round(),
            "city": rng.choice(["Ulm", "Bonn", "Kiel"], n),
            "sex": sex,
            "y": rng.integers(0, 2, n),
        }
    )


@pytest.fixture
def subject_on(bare_project, tmp_path):
    def make(frame, features, *, more="", **data):
        lines = "\n".join(f"{key} = {value!r}" for key, value in data.items())
        bare_project.settings(more, bare_project.base.replace("[data]", f"[data]\n{lines}"))
        bare_project.data(test=frame, train=frame)
        subject = bare_project.subject(failures_dir=tmp_path / "failures")
        subject.__dict__["candidate"] = JudgedModel("m", Always(), target="y", features=features)
        return subject

    return make


def test_a_feature_that_gives_the_sensitive_column_away_is_named(subject_on):
    """Height tells women from men: FAILED above the limit, with interval and column."""
    frame = people()
    subject = subject_on(frame, ["height", "income", "city"])
    found = proxies(subject, "sex", ProxiesCheck())
    assert found.verdict is Verdict.FAILED
    assert "'height'" in found.summary
    oracle = roc_auc_score(frame["sex"] == "M", frame["height"])
    assert found.interval[0] < oracle < found.interval[1] + 0.02
    kept = proxies(subject, "sex", ProxiesCheck(at_most=0.99))
    assert kept.verdict is Verdict.PASSED


def test_features_that_say_nothing_pass_by_their_interval(subject_on):
    """Income and city say nothing about sex: the AUC is about one half."""
    found = proxies(subject_on(people(), ["income", "city"]), "sex", ProxiesCheck())
    assert found.verdict is Verdict.PASSED
    assert found.interval[0] < 0.5 < found.interval[1]


def test_the_sensitive_column_as_a_feature_needs_no_proxy(subject_on):
    """A model that sees the column itself is told so."""
    found = proxies(subject_on(people(), ["height", "sex"]), "sex", ProxiesCheck())
    assert found.verdict is Verdict.FAILED
    assert "itself a feature" in found.summary


def test_too_few_people_leave_proxies_undecided(subject_on):
    """A group of twenty says nothing; eighty rows say how many would."""
    frame = people(80)
    few = frame.assign(sex=np.where(frame.index < 20, "F", "M"))
    found = proxies(subject_on(few, ["income", "city"]), "sex", ProxiesCheck())
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "few")
    some = proxies(subject_on(frame, ["height"]), "sex", ProxiesCheck(at_most=0.9))
    assert some.verdict is Verdict.INCONCLUSIVE
    assert some.n_min > 80
    one = proxies(subject_on(people().assign(sex="F"), ["income"]), "sex", ProxiesCheck())
    assert one.verdict is Verdict.INCONCLUSIVE


def test_personal_data_in_a_feature_fails_and_says_how_to_keep_it_out_of_the_log(subject_on):
    """A mail address that the model sees is FAILED; one it does not see warns; both by name."""
    frame = people().assign(contact=[f"p{one}@example.com" for one in range(1500)])
    found = privacy.personal_data(subject_on(frame, ["income", "contact"]), PiiCheck())
    assert found.verdict is Verdict.FAILED
    assert "'contact' (mail addresses: 100 % of 1,500 values)" in found.summary
    assert '[log] redact = ["contact"]' in found.next_step
    assert "example.com" not in str(found.to_json())
    unseen = privacy.personal_data(subject_on(frame, ["income"]), PiiCheck())
    assert unseen.verdict is Verdict.WARNED
    allowed = privacy.personal_data(subject_on(frame, ["income"]), PiiCheck(allow=["contact"]))
    assert allowed.verdict is Verdict.PASSED
    redacted = subject_on(frame, ["income", "contact"], more='[log]\nredact = ["contact"]\n')
    assert "redact" not in privacy.personal_data(redacted, PiiCheck()).next_step


def test_a_few_people_are_not_counted_out(subject_on):
    """Fewer than ten values are told as such, in words and in no measurement."""
    frame = people().assign(note="nothing")
    frame.loc[:2, "note"] = "write to ann@example.com"
    found = privacy.personal_data(subject_on(frame, ["income", "note"]), PiiCheck())
    assert "mail addresses: fewer than 10 values" in found.summary
    assert not found.measurements


def test_numbers_alone_are_skipped_not_passed(subject_on):
    """Where no column could hold personal data, nobody says there is none."""
    frame = people().assign(income=lambda f: f["income"] + 0.5).drop(columns=["city", "sex"])
    subject = subject_on(frame.assign(sex=0.5), ["income"])
    assert privacy.personal_data(subject, PiiCheck()).verdict is Verdict.SKIPPED


def test_people_who_stand_alone_are_counted_and_listed(subject_on, tmp_path):
    """Combinations shared by fewer than five rows are FAILED; the rows are listed by id."""
    frame = people().assign(id=[f"p{one}" for one in range(1500)])
    frame.loc[:2, "city"] = "Rom"
    subject = subject_on(frame, ["income"], id="id")
    found = k_anonymity(subject, AnonymityCheck(columns=["city", "sex"]))
    assert found.verdict is Verdict.FAILED
    sizes = frame.groupby(["city", "sex"]).size()
    assert found.value == sizes.min()
    assert f"{sizes[sizes < 5].sum()} of 1,500 rows of test" in found.summary
    listed = pd.read_csv(tmp_path / "failures/privacy-k_anonymity-test.csv")
    assert listed["id"].tolist() == ["p0", "p1", "p2"]
    alike = k_anonymity(subject, AnonymityCheck(columns=["sex"]))
    assert alike.verdict is Verdict.PASSED
    with pytest.raises(DataError, match="did you mean 'city'"):
        k_anonymity(subject, AnonymityCheck(columns=["citi"]))


def test_the_family_declares_what_is_asked_for(subject_on):
    """One item for personal data, one per sensitive column, one for anonymity where asked."""
    subject = subject_on(people(), ["income"])
    root = subject.project.root
    declared = privacy.Privacy().declare(subject.settings, root)
    assert [one.name for one in declared.items] == ["privacy.pii", "privacy.proxies[sex]"]
    assert {one.policy.enforcement for one in declared.items} == {Enforcement.WARN}
    more = '[gate.privacy.k_anonymity]\ncolumns = ["city"]\n[gate.privacy.pii]\nenabled = false\n'
    asked = subject_on(people(), ["income"], more=more)
    declared = privacy.Privacy().declare(asked.settings, root)
    assert [one.id for one in declared.items] == ["privacy.proxies", "privacy.k_anonymity"]
    assert declared.not_applicable == ("privacy.pii: switched off in app.toml",)
    results = [privacy.Privacy().run(one, asked) for one in declared.items]
    assert [one.verdict for one in results] == [Verdict.PASSED, Verdict.PASSED]


def test_assertions_say_which_column_and_never_a_value():
    """assert_no_pii and assert_no_leakage name the column, its share and the next step."""
    frame = people()
    assert assert_no_pii(frame).verdict is Verdict.PASSED
    personal = frame.assign(contact="ann@example.com")
    with pytest.raises(CheckFailedError, match="'contact' \\(mail addresses") as caught:
        assert_no_pii(personal)
    assert "ann@" not in str(caught.value)
    assert assert_no_pii(personal, allow=["contact"]).verdict is Verdict.PASSED
    with pytest.raises(DataError, match="no rows"):
        assert_no_pii(frame.head(0))
    assert assert_no_leakage(frame, target="y").verdict is Verdict.PASSED
    with pytest.raises(CheckFailedError, match="'paid'"):
        assert_no_leakage(frame.assign(paid=frame["y"] * 10.0), target="y")
    with pytest.raises(CheckFailedError, match="could be ranked"):
        assert_no_leakage(frame.assign(y=1), target="y")
    with pytest.raises(DataError, match="no row has a label"):
        assert_no_leakage(frame.assign(y=np.nan), target="y")


def test_leakage_of_a_regression_by_assertion():
    """A column in the order of the target is named by its rank correlation."""
    frame = people().assign(y=lambda f: f["income"] ** 2)
    with pytest.raises(CheckFailedError, match="rank correlation"):
        assert_no_leakage(frame, target="y", regression=True)
    assert leakage.find_leakage([frame], ["height"], "y", regression=True).verdict is Verdict.PASSED
