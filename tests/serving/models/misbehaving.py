"""A model that does whatever its first input tells it to."""

import ctypes
import math
import os
import signal
import sys
import threading
import time

import numpy as np

RAISE, HANG, SEGFAULT, EXIT, NAN, COUNT, LEAK, SYSTEM_EXIT, INFINITY, SLOW, DTYPE = range(1, 12)
SPIN, SPIN_ON, STOP_LATER, LOCK_LATER, WORK = range(12, 17)
#: After the answer is out, and before anybody asks again.
LATER_S = 0.2


def burn(seconds=math.inf):
    """Use a core for so long, as the processor counts it."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def lock():
    """Sleep for an hour with the interpreter's lock in hand, as a bad extension might."""
    ctypes.PyDLL(None).sleep(3600)


def stop():
    """Stop the process as a debugger would."""
    os.kill(os.getpid(), signal.SIGSTOP)


def use_time(moods):
    """Use processor time, now or after the answer is out; or stop."""
    if SPIN in moods:
        burn()
    if WORK in moods:
        burn(0.1)
    for mood, work in ((SPIN_ON, burn), (STOP_LATER, stop), (LOCK_LATER, lock)):
        if mood in moods:
            timer = threading.Timer(LATER_S, work)
            timer.daemon = True
            timer.start()


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
        use_time(moods)
        if DTYPE in moods:
            return np.array([["a", "b"]] * len(rows), dtype=object)
        second = np.where(rows[:, 1] > 0, 0.9, 0.1)
        second = np.where(rows[:, 0] == NAN, np.nan, second)
        second = np.where(rows[:, 0] == INFINITY, np.inf, second)
        found = np.column_stack([1 - second, second])
        return found[:-1] if COUNT in moods else found
