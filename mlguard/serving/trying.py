"""Whether a loaded model answers, asked past its callers' queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mlguard.serving.model_runner import made_up

if TYPE_CHECKING:
    from mlguard.models.schema import InputSchema
    from mlguard.serving.replica import BatchAnswer, Replica

#: Longest that a made-up row is waited for; what takes longer is tried elsewhere.
_ASK_S = 1.0


async def repeats_itself(replica: Replica, schema: InputSchema) -> bool:
    """Ask a model a made-up row twice: whether it answers alike.

    False where it has no room for it now, too: nothing is known then.
    """
    row = made_up(schema)
    first, second = [await _asked(replica, row) for _ in range(2)]
    return first is not None and first == second


async def _asked(replica: Replica, row: Any) -> tuple[Any, float | None] | None:
    """Return label and score of a row; None where there are none in time."""
    answered: asyncio.Future[BatchAnswer] = asyncio.get_running_loop().create_future()

    def done(answer: BatchAnswer) -> None:
        if not answered.done():
            answered.set_result(answer)

    if not replica.run([row], done):
        return None
    try:
        answer = await asyncio.wait_for(answered, _ASK_S)
    except TimeoutError:
        return None
    return None if answer.errors else (answer.labels[0], answer.scores[0])
