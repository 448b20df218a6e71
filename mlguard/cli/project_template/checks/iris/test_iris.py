"""What a model of irises must get right, whatever it is and however it was trained."""

from sklearn.tree import DecisionTreeClassifier

from mlguard.checks import assert_beats


def test_the_smallest_flower_is_a_setosa(candidate):
    """A flower with the smallest of all measurements is a setosa, number 0."""
    assert candidate.predict([[4.3, 2.0, 1.0, 0.1]]).labels.tolist() == [0]


def test_every_setosa_is_found(candidate, test):
    """Setosas stand apart from the other two species: no other flower is taken for one."""
    found = candidate.predict(test).labels == 0
    assert (found == (test["species"] == 0)).all()


def test_half_a_millimetre_changes_next_to_nothing(candidate, test):
    """A ruler reads to half a millimetre; at most one flower in twenty changes its species."""
    lengths = test.drop(columns="species")
    longer = candidate.predict(lengths + 0.05).labels
    assert (longer != candidate.predict(lengths).labels).mean() <= 0.05


def test_more_than_one_question_is_asked(candidate, train, test):
    """One question about one length tells two species apart, not three: a model does better."""
    lengths = train.drop(columns="species")
    one_question = DecisionTreeClassifier(max_depth=1).fit(lengths, train["species"])
    assert_beats(candidate, one_question, test, by_at_least=0.1)


def test_the_server_answers_as_the_model_does(served, candidate, test):
    """A flower gets the same answer over HTTP as from the model in memory."""
    rows = test.drop(columns="species").head(10)
    answer = served.post("/iris/predict", json={"input_batch": rows.to_numpy().tolist()})
    outputs = [one["output"] for one in answer.json()["batch_predictions"]]
    assert outputs == candidate.predict(rows).labels.tolist()
