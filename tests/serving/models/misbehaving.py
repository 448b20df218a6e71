"""A model that does whatever its first input tells it to."""

import ctypes
import os
import sys
import time

import numpy as np

RAISE, HANG, SEGFAULT, EXIT, NAN, COUNT, LEAK, SYSTEM_EXIT, INFINITY, SLOW, DTYPE = range(1, 12)


class Moody:
    """A classifier of two classes; 0 in the first column is a row like any other."""

    def __init__(self):
        self.classes_ = np.array([0, 1])
        self.n_features_in_ = 2
        self.kept = []

    def predict(self, rows):
        return self.classes_[np.argmax(self.predict_proba(rows), axis=1)]

    def predict_proba(self, rows):
        moods = set(rows[:, 0].astype(int).tolist())
        if RAISE in moods:
            raise ValueError("secret text of the exception")
        if HANG in moods:
            time.sleep(3600)
        if SEGFAULT in moods:
            ctypes.string_at(0)
        if EXIT in moods:
            os._exit(7)
        if SYSTEM_EXIT in moods:
            sys.exit(3)
        if LEAK in moods:
            self.kept.append(np.ones(40 * 2**17))  # 40 MiB that are really there
        if SLOW in moods:
            time.sleep(0.4)
        if DTYPE in moods:
            return np.array([["a", "b"]] * len(rows), dtype=object)
        second = np.where(rows[:, 1] > 0, 0.9, 0.1)
        second = np.where(rows[:, 0] == NAN, np.nan, second)
        second = np.where(rows[:, 0] == INFINITY, np.inf, second)
        found = np.column_stack([1 - second, second])
        return found[:-1] if COUNT in moods else found
