"""Asking with patience: what does not answer in time is left behind, and is not asked again.

A monitor may be somebody else's code, and it may hang.  Python cannot end a thread, so one that
hangs stays behind as a daemon; while it does, its monitor is not asked a second time: there is
never more than one thread of each, however long the watcher runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from mlguard.errors import MlguardError

#: Seconds after which a monitor counts as hanging; a leader's lease lasts longer.
HANGS_S = 20.0

Answer = TypeVar("Answer")

_left_behind: dict[str, threading.Thread] = {}


class HangsError(MlguardError):
    """Something that was asked did not answer in time."""

    code = "hangs"


def ask_in_time(name: str, ask: Callable[[], Answer], seconds: float) -> Answer:
    """Return what ``ask`` returns, if it does so in time.

    Parameters
    ----------
    name : str
        Of whom; one that was left behind is not asked until it is done.
    ask : callable
        The question.  What it touches must not be used by others once it was left behind.
    seconds : float
        How long it may take.

    Raises
    ------
    HangsError
        If it does not answer in time, or an earlier question of its name is still open.
    Exception
        Whatever ``ask`` raises.
    """
    earlier = _left_behind.get(name)
    if earlier is not None and earlier.is_alive():
        raise HangsError(f"{name} hangs since an earlier window")
    answer: dict[str, Any] = {}

    def run() -> None:
        try:
            answer["value"] = ask()
        # Whatever it is, it belongs to whoever asked.
        except BaseException as error:  # noqa: BLE001
            answer["error"] = error

    thread = threading.Thread(target=run, name=f"mlguard-{name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _left_behind[name] = thread
        raise HangsError(f"{name} gave no answer in {seconds:g} s")
    _left_behind.pop(name, None)
    if "error" in answer:
        raise answer["error"]
    found: Answer = answer["value"]
    return found
