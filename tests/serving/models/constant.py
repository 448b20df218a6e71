"""A model that answers one class, whatever comes, and loads without scikit-learn."""

import numpy as np


class Constant:
    def __init__(self, label):
        self.label = label
        self.classes_ = np.array([0, 1])
        self.n_features_in_ = 2

    def predict_proba(self, rows):
        second = 0.9 if self.label else 0.1
        return np.tile([1 - second, second], (len(rows), 1))
