"""Whether one of many sources sent too many of the labels that a verdict rests on.

Where several sources are usual, one that suddenly sends most labels is more likely to be broken,
or poisoned, than the model.  Where few are usual nobody is suspected: most apps have one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mlguard.monitors.window import WindowData
from mlguard.results import MonitorResult, Verdict

#: Where at least so many sources are usual, none may send more than `[labels] max_source_share`.
USUAL_SOURCES = 5
#: Sources told apart; what comes from further ones is counted under one name.
MOST_SOURCES = 50
#: Labels below which a share of them says nothing.
N_MIN = 20


def sent_too_many(sources: Iterable[Any], n_usual: int, *, at_most: float) -> str | None:
    """Say which source sent too many of some labels, if one did.

    Parameters
    ----------
    sources : iterable
        Who sent each label.
    n_usual : int
        Sources that labels usually come from.
    at_most : float
        Largest share of one of them, ``[labels] max_source_share``.
    """
    counted = Counter(map(str, sources))
    total = counted.total()
    if n_usual < USUAL_SOURCES or total < N_MIN:
        return None
    name, most = counted.most_common(1)[0]
    if most / total <= at_most:
        return None
    return f"{most} of {total} labels came from {name!r}, where {n_usual} sources are usual"


def with_sources(known: Mapping[str, int], sources: Iterable[Any]) -> Counter[str]:
    """Return how many labels each source has sent, with those of one more window."""
    found = Counter(known)
    for name, n in Counter(map(str, sources)).items():
        found[name if name in found or len(found) < MOST_SOURCES else "others"] += n
    return found


def suspected(window: WindowData, *, at_most: float) -> str | None:
    """Say which source sent too many of a window's labels, if one did."""
    return sent_too_many(window.source[window.labelled], window.usual_sources, at_most=at_most)


def suspect(window: WindowData, *, at_most: float, facts: dict[str, Any]) -> MonitorResult | None:
    """Return the undecided result of a window most of whose labels one source sent.

    Parameters
    ----------
    window : WindowData
        Labelled rows.
    at_most : float
        ``[labels] max_source_share``.
    facts : dict
        Id of the result, and what else it is to say.

    Returns
    -------
    MonitorResult or None
        INCONCLUSIVE(suspect_source), or None where nobody is suspected.
    """
    words = suspected(window, at_most=at_most)
    if words is None:
        return None
    return MonitorResult(
        verdict=Verdict.INCONCLUSIVE,
        summary=f"{words}: not judged",
        reason="suspect_source",
        n=int(window.labelled.sum()),
        n_min=N_MIN,
        version=window.version,
        window=window.window,
        next_step="ask who sends these labels; [labels] trusted_sources says whose count",
        **facts,
    )
