"""The gate judges the answers that callers of each group would get."""

import numpy as np
import pytest

from mlguard.checks.reference import reference_document
from mlguard.deploy.candidate import describe
from mlguard.errors import ConfigError
from mlguard.models.formats import save_model
from mlguard.pytest_plugin.served import serve_candidate

KEYS = '[app]\ngroups_affect_decisions = true\nkeys = ["portal"]'
BY_SEX = '\n[model.thresholds]\ndefault = 0.5\n"sex=F" = 0.2\n'


@pytest.fixture
def by_sex(project):
    text = (project.app / "app.toml").read_text()
    (project.app / "app.toml").write_text(text.replace("[app]", KEYS) + BY_SEX)
    return project


def test_the_candidate_is_judged_by_each_rows_own_threshold(project, test_frame, fitted):
    """Women from 0.2, men from the default, both in the model's own dtype."""
    scores = fitted.predict_proba(test_frame)[:, 1]
    plain = project.subject().candidate.predict(test_frame)
    text = (project.app / "app.toml").read_text()
    (project.app / "app.toml").write_text(text.replace("[app]", KEYS) + BY_SEX)
    answers = project.subject().candidate.predict(test_frame)
    women = (test_frame["sex"] == "F").to_numpy()
    np.testing.assert_array_equal(answers.labels[women], (scores[women] >= 0.2).astype(int))
    np.testing.assert_array_equal(answers.labels[~women], plain.labels[~women])
    assert answers.labels.dtype == plain.labels.dtype
    assert answers.scores is plain.scores or np.array_equal(answers.scores, plain.scores)


def test_the_gate_and_the_server_answer_alike(by_sex, test_frame):
    """The served candidate gives each row what the gate has judged, however short the deadline."""
    text = (by_sex.app / "app.toml").read_text()
    (by_sex.app / "app.toml").write_text(text.replace("[app]", "[app]\nslo_ms = 0.001", 1))
    subject = by_sex.subject()
    rows = subject.labelled.head(60)
    judged = subject.candidate.predict(rows).outputs()
    with serve_candidate(subject) as client:
        answered = [
            client.post(
                "/credit/predict",
                json={
                    "input": row[["income", "age", "city"]].to_dict(),
                    "groups": {"sex": row["sex"]},
                },
            ).json()["output"]
            for _, row in rows.iterrows()
        ]
    assert answered == judged


def test_rows_without_the_attribute_get_the_default(by_sex, test_frame):
    """A frame that does not tell sex is answered as a caller who does not."""
    candidate = by_sex.subject().candidate
    without = test_frame.drop(columns=["sex"])
    unknown = test_frame.assign(sex=None)
    expected = (candidate.predict(test_frame).scores >= 0.5).astype(int)
    np.testing.assert_array_equal(candidate.predict(without).labels, expected)
    np.testing.assert_array_equal(candidate.predict(unknown).labels, expected)


def test_the_reference_is_that_of_the_answers_given(by_sex, project):
    """Monitors compare live answers with the loss under the same thresholds."""
    document = reference_document(by_sex.subject())
    women = document["groups"]["sex"]["F"]["confusion"]
    men = document["groups"]["sex"]["M"]["confusion"]
    selected = [(one["tp"] + one["fp"]) / sum(one.values()) for one in (women, men)]
    assert selected[0] > selected[1]


def test_the_policy_is_part_of_the_version(by_sex, project):
    """Another table is another digest."""
    first = by_sex.subject().manifest
    assert first.thresholds == {"default": 0.5, "sex=F": 0.2}
    text = (by_sex.app / "app.toml").read_text()
    (by_sex.app / "app.toml").write_text(text.replace("0.2", "0.3"))
    assert by_sex.subject().manifest.digest != first.digest


@pytest.mark.parametrize(
    ("estimator", "said"),
    [("tree of three classes", "two classes"), ("no scores", "gives no scores")],
)
def test_a_candidate_that_cannot_keep_them_is_refused(
    by_sex, train_frame, test_frame, estimator, said
):
    """Thresholds per group need two classes and scores; that is said before anything runs."""
    from sklearn.linear_model import Perceptron
    from sklearn.multiclass import OutputCodeClassifier
    from sklearn.tree import DecisionTreeClassifier

    numbers = train_frame[["income", "age"]]
    if estimator == "no scores":
        model = OutputCodeClassifier(Perceptron(), random_state=0).fit(numbers, train_frame["y"])
    else:
        model = DecisionTreeClassifier(max_depth=2).fit(numbers, train_frame["city"])
    save_model(model, by_sex.app / "other.skops")
    payload = {
        "root": str(by_sex.root),
        "app": "credit",
        "file": str(by_sex.app / "other.skops"),
    }
    text = (by_sex.app / "app.toml").read_text()
    trusted = (
        '[model]\ntrusted_types = ["sklearn.multiclass.OutputCodeClassifier", '
        '"sklearn.multiclass._ConstantPredictor"]\n'
    )
    (by_sex.app / "app.toml").write_text(
        text.replace("[model.thresholds]", trusted + "[model.thresholds]")
    )
    with pytest.raises(ConfigError, match=said):
        describe(payload)
