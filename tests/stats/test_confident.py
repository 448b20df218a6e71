import json

import numpy as np
import pytest

from mlguard.errors import UsageError
from mlguard.stats.confident import label_issues, self_confidence, thresholds


@pytest.fixture(scope="module")
def cifar(shared_data):
    """Published out-of-sample probabilities and labels of the CIFAR-10 test images."""
    folder = shared_data / "labels/cifar10_test_set"
    labels = np.load(folder / "given_labels.npy").astype(int)
    return labels, np.load(folder / "pred_probs.npy").astype(float), folder


def test_cifar_has_its_known_label_issues(cifar):
    """Thresholds and the 244 off-diagonal images are the published ones; 54 errors rank lowest."""
    labels, chances, folder = cifar
    assert thresholds(labels, chances) == pytest.approx(
        [0.92144, 0.95128, 0.9155, 0.81612, 0.9233, 0.86554, 0.93898, 0.94475, 0.96535, 0.92669],
        abs=1e-4,
    )
    assert int(label_issues(labels, chances).sum()) == 244
    reviewed = json.loads((folder / "mturk.json").read_text())
    confirmed = [one["id"] for one in reviewed if _wrong(one["mturk"])]
    assert len(confirmed) == 54
    lowest = np.argsort(self_confidence(labels, chances), kind="stable")[:500]
    assert len(set(confirmed) & set(lowest.tolist())) >= 50


def _wrong(votes):
    """Whether a majority of five people did not choose the given label."""
    return votes["given"] < 3


def test_issues_are_those_of_cleanlab(cifar):
    """On CIFAR and on noise the rows are exactly those off cleanlab's confident joint."""
    count = pytest.importorskip("cleanlab.count")
    labels, chances, _ = cifar
    rng = np.random.default_rng(0)
    noisy = rng.dirichlet([1.0, 1.0, 1.0, 0.5], 4000)
    cases = [(labels, chances), (rng.integers(0, 4, 4000), noisy)]
    for given, predicted in cases:
        _, expected = count.compute_confident_joint(
            given, predicted, calibrate=False, return_indices_of_off_diagonals=True
        )
        assert np.flatnonzero(label_issues(given, predicted)).tolist() == sorted(expected)


def test_probabilities_that_do_not_fit_are_refused():
    """Shapes, foreign labels and NaN are named; a class without rows is never confident."""
    with pytest.raises(UsageError, match="one column a class"):
        label_issues([0, 1], [0.5, 0.5])
    with pytest.raises(UsageError, match="outside 0 to 1"):
        label_issues([0, 2], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(UsageError, match="not finite"):
        label_issues([0], [[np.nan, 0.5]])
    assert not label_issues([0, 0], [[0.2, 0.8], [0.1, 0.9]]).any()
