"""Query ids that name their version, even where the prediction's own row was lost.

The registry hands out blocks of ids, each for one app, version and generation; a process
counts through its blocks.  Refilling happens in another thread, well before a block ends.

A process whose registry is gone goes on with the ids it has.  When even those are used up it
answers all the same, with ids drawn at random from a range that the registry never reaches:
an answer whose label cannot be credited is better than no answer.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

#: Ids from here on belong to no block; ids stay below 2**53.
UNCREDITED = 2**52
_LOWEST_BLOCK = 1 << 16
_HIGHEST_BLOCK = 1 << 26

#: (version id, or 0 where no version answers; generation)
Key = tuple[int, int]


class QueryIds:
    """The ids of one app in one process.

    Parameters
    ----------
    reserve : callable
        ``reserve(version_id, generation, size)`` returns a fresh range; slow, may raise.
    """

    def __init__(self, reserve: Callable[[int, int, int], range]) -> None:
        self._reserve = reserve
        self._blocks: dict[Key, deque[range]] = {}
        self._next: dict[Key, int] = {}
        self._size: dict[Key, int] = {}
        self._given: deque[tuple[int, int, Key]] = deque(maxlen=4096)
        self.uncredited = 0

    def draw(self, key: Key) -> int:
        """Return the next id for a version in a generation."""
        blocks = self._blocks.get(key)
        if blocks:
            current = self._next[key]
            if current < blocks[0].stop:
                self._next[key] = current + 1
                return current
            blocks.popleft()
            if blocks:
                self._next[key] = blocks[0].start
                return self.draw(key)
        self.uncredited += 1
        return UNCREDITED | random.getrandbits(51)

    def draw_many(self, key: Key, n: int) -> Sequence[int]:
        """Return the next ``n`` ids for a version in a generation."""
        blocks = self._blocks.get(key)
        if blocks:
            first = self._next[key]
            if first + n <= blocks[0].stop:
                self._next[key] = first + n
                return range(first, first + n)
        return [self.draw(key) for _ in range(n)]

    def refill(self, key: Key) -> None:
        """Reserve a block if less than half of one is left; called off the event loop.

        Blocks double each time they are used up, so that a busy app asks rarely.
        """
        blocks = self._blocks.get(key)
        last = self._size.get(key, 0)
        if blocks and self.left(key) > last // 2:
            return
        size = min(2 * last, _HIGHEST_BLOCK) if last else _LOWEST_BLOCK
        block = self._reserve(*key, size)
        self._given.append((block.start, block.stop, key))
        if blocks is None:
            self._next[key] = block.start
            self._blocks[key] = deque([block])
        else:
            if not blocks:
                self._next[key] = block.start
            blocks.append(block)
        self._size[key] = size

    def left(self, key: Key) -> int:
        """Return how many credited ids are left."""
        blocks = list(self._blocks.get(key, ()))
        if not blocks:
            return 0
        first = max(blocks[0].stop - self._next[key], 0)
        return first + sum(len(block) for block in blocks[1:])

    def forget(self, keep: set[Key]) -> None:
        """Drop the blocks of versions and generations that no longer answer."""
        for key in set(self._blocks) - keep:
            del self._blocks[key]

    def was_drawn(self, query_id: int) -> bool | None:
        """Whether this process gave out an id; None where the id is not from its blocks."""
        for start, stop, key in reversed(self._given):
            if start <= query_id < stop:
                blocks = self._blocks.get(key)
                if not blocks or query_id < blocks[0].start:
                    return True
                return query_id < self._next[key]
        return None
