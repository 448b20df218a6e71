"""A column of one value: as long as its rows, and as cheap as one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, overload


class Same(Sequence[Any]):
    """One value, so many times.

    Parameters
    ----------
    value : Any
        The value.
    n : int
        How often.

    Examples
    --------
    >>> list(Same(None, 3))
    [None, None, None]
    """

    __slots__ = ("n", "value")

    def __init__(self, value: Any, n: int) -> None:
        self.value = value
        self.n = n

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, place: int) -> Any: ...

    @overload
    def __getitem__(self, place: slice) -> Same: ...

    def __getitem__(self, place: int | slice) -> Any:
        found = range(self.n)[place]
        return self.value if isinstance(found, int) else Same(self.value, len(found))

    def __iter__(self) -> Iterator[Any]:
        return repeat(self.value, self.n)
