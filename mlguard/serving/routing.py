"""Which version answers a request, and which ones see it as well: pure, no queue, no clock.

Rules
-----
1. The active version answers, but for the share of callers that a *canary* is given.
2. A caller who gives a ``uid`` is always on the same side: the side is a hash of uid and
   candidate, so that a share that grows keeps those it had, and another candidate is tried on
   other people.  A caller without one is drawn for each request.
3. A request is answered by one version, whole: a batch never mixes versions.
4. A *mirror* is shown a share of the requests that the active version answers, afterwards, and
   what it answers is logged and discarded.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

_SCALE = float(2**64)


@dataclass(frozen=True, slots=True)
class Split:
    """Who takes part beside the active version.

    Attributes
    ----------
    candidate : int or None
        Id of the version that is given a share of the callers.
    weight : float
        That share, in [0, 1].
    mirrors : tuple of (int, float)
        Ids of the versions that are shown requests, each with its share in [0, 1].
    """

    candidate: int | None = None
    weight: float = 0.0
    mirrors: tuple[tuple[int, float], ...] = ()


#: Nobody takes part: what is in force wherever nothing is being rolled out.
ALONE = Split()


def place(uid: str, salt: object) -> float:
    """Return where a caller stands in [0, 1): the same for the same uid and salt, ever.

    Parameters
    ----------
    uid : str
        The caller; any text, also with half a surrogate pair.
    salt : object
        What the place is for; printed as text.

    Returns
    -------
    float
    """
    digest = blake2b(f"{salt}/{uid}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    # The largest 64-bit number rounds to 1, which is no place.
    return min(int.from_bytes(digest, "big") / _SCALE, 1 - 2.0**-53)


def takes_canary(split: Split, uid: str | None, draw: float) -> bool:
    """Return whether the candidate answers.

    Parameters
    ----------
    split : Split
        Who takes part.
    uid : str or None
        The caller, where it says who it is.
    draw : float
        A random number in [0, 1), for a caller that does not.
    """
    if split.candidate is None or split.weight <= 0:
        return False
    return (draw if uid is None else place(uid, split.candidate)) < split.weight


def shown_to(split: Split, draw: float) -> tuple[int, ...]:
    """Return who is shown a request that the active version answered.

    Parameters
    ----------
    split : Split
        Who takes part.
    draw : float
        A random number in [0, 1), of its own for each request.
    """
    return tuple(version_id for version_id, share in split.mirrors if draw < share)
