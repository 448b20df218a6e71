"""Labels: durable before they are acknowledged, credited to the prediction's own version.

``{"query_id": id, "label": y}`` names the prediction; Clipper's ``{"uid", "input", "label"}``
means the latest prediction of that uid for that input.  An id that nobody was given is a 404,
a second label that differs from the first a 409.

Labels that arrive together are committed together: one waits for the disk, all are durable.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import msgspec

from mlguard.data.schema import Feature
from mlguard.errors import ConflictError, NotFoundError
from mlguard.serving.engine import AppEngine, OverloadedError
from mlguard.serving.inputs import BadRequestError, json_error, read_request

#: Who sends a label where the app has no keys.
DEFAULT_SOURCE = "default"
_MAX_WAITING = 10_000
_MAX_COMMIT = 1_000
_BLOCKS = 4_096
#: Ids from here on cannot be written exactly in JSON.
_TOO_LARGE = 2**53

Outcome = Literal["stored", "same", "conflict"]


class Labels(Protocol):
    """Where one app's labels are kept (see ``data.labels``)."""

    def put_many(self, labels: Iterable[tuple[int, Any, str, float]]) -> list[Outcome]:
        """Store labels in one transaction; durable on return."""


class Owner(Protocol):
    """A block of query ids."""

    @property
    def app(self) -> str:
        """The app it was reserved for."""

    @property
    def first(self) -> int:
        """Its first id."""

    @property
    def size(self) -> int:
        """How many ids it has."""


class _Update(msgspec.Struct):
    label: Any = msgspec.UNSET
    query_id: int | msgspec.UnsetType = msgspec.UNSET
    uid: str | int | msgspec.UnsetType = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_UPDATE = msgspec.json.Decoder(_Update)


class Feedback:
    """Takes the labels of one app.

    Parameters
    ----------
    engine : AppEngine
        Knows the ids it gave out.
    labels : Labels
        Where they are kept.
    owner : callable
        ``owner(query_id)`` returns the block an id belongs to, or None; slow, may raise.
    search : callable, optional
        ``search(uid, row, features)`` finds the latest query of a uid in the prediction log
        where this process does not remember it; slow.
    clock : callable, default time.time
        Seconds since the epoch.
    """

    def __init__(
        self,
        engine: AppEngine,
        labels: Labels,
        owner: Callable[[int], Owner | None],
        *,
        search: Callable[[str, Any, Sequence[Feature]], int | None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._labels = labels
        self._owner = owner
        self._search = search
        self._clock = clock
        self._blocks: OrderedDict[int, Owner] = OrderedDict()
        self._waiting: list[tuple[tuple[int, Any, str, float], asyncio.Future[Outcome]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._asking = 0
        # One writer: SQLite has no more, and a queue in front of it is easier to bound.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"labels-{engine.name}")

    async def put(self, body: bytes, *, source: str = DEFAULT_SOURCE) -> None:
        """Store the label of one update request; durable on return.

        Raises
        ------
        BadRequestError
            If the body is no update.
        NotFoundError
            If nobody was given that id.
        ConflictError
            If another label was there first.
        OverloadedError
            If too many labels wait for the disk.
        RegistryError
            If the label could not be stored, or the id not be looked up.
        """
        update = self._read(body)
        query_id = await self._query_id(update, body)
        if len(self._waiting) >= _MAX_WAITING:
            raise OverloadedError(f"{len(self._waiting)} labels wait for the disk")
        outcome = await self._stored((query_id, update.label, source, self._clock()))
        self._engine.metrics.labels.labels(self._engine.name, outcome).inc()
        if outcome == "conflict":
            raise ConflictError(f"query {query_id} already has another label; the first one stays")

    def close(self) -> None:
        """End the writing thread after what it holds."""
        self._thread.shutdown(wait=True)

    def _read(self, body: bytes) -> _Update:
        try:
            update = _UPDATE.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise json_error(str(error)) from None
        if update.label is msgspec.UNSET:
            raise json_error("the object has no `label`")
        if not isinstance(update.label, (str, int, float, bool)):
            raise json_error("`label` is a number, a string or a truth value")
        self._refuse_other_kind(update.label)
        if update.query_id is msgspec.UNSET and (
            update.uid is msgspec.UNSET or update.input is msgspec.UNSET
        ):
            raise json_error("the object has neither `query_id` nor `uid` and `input`")
        return update

    def _refuse_other_kind(self, label: Any) -> None:
        """Refuse text where the app answers numbers, and the reverse.

        Such a label can never equal an answer: stored, it would count as an error of the model.
        """
        schemas = [version.schema for version in self._engine.versions.values()]
        if not schemas:
            return
        wanted = schemas[0].classes
        kind = str if wanted is not None and isinstance(wanted[0], str) else (int, float)
        written_alike = str(label) in map(str, wanted or ())
        if not isinstance(label, kind) and not written_alike:
            known = "a number" if wanted is None else "one of " + ", ".join(map(repr, wanted[:10]))
            raise json_error(f"`label` is {label!r}; {self._engine.name} answers {known}")

    async def _query_id(self, update: _Update, body: bytes) -> int:
        if update.query_id is msgspec.UNSET:
            return await self._recalled(str(update.uid), body)
        query_id: int = update.query_id
        if not 0 <= query_id < _TOO_LARGE or not await self._was_given(query_id):
            raise NotFoundError(f"nobody was given query id {query_id} by {self._engine.name}")
        return query_id

    async def _recalled(self, uid: str, body: bytes) -> int:
        """Return the latest query of a uid with the ``input`` of a body."""
        request = read_request(body)
        rows = []
        unreadable: BadRequestError | None = None
        for reader in self._engine.readers():
            try:
                rows.append((reader, reader.read(request)[0]))
            except BadRequestError as error:
                unreadable = unreadable or error
        if not rows and unreadable is not None:
            raise unreadable
        for _, row in rows:
            found = self._engine.recall.find(uid, row)
            if found is not None:
                return found
        if self._search is not None:
            for reader, row in rows:
                found = await self._slowly(self._search, uid, row, reader.features)
                if found is not None:
                    return int(found)
        raise NotFoundError(f"no recent prediction for uid {uid!r} with this input")

    async def _was_given(self, query_id: int) -> bool:
        ours = self._engine.ids.was_drawn(query_id)
        if ours is not None:
            return ours
        block = self._known_block(query_id)
        if block is None:
            block = await self._looked_up(query_id)
        return block is not None and block.app == self._engine.name

    def _known_block(self, query_id: int) -> Owner | None:
        for block in reversed(self._blocks.values()):
            if block.first <= query_id < block.first + block.size:
                return block
        return None

    async def _looked_up(self, query_id: int) -> Owner | None:
        """Ask for the block of an id: one at a time, for a burst is mostly of one block."""
        if self._asking >= _MAX_WAITING:
            raise OverloadedError(f"{self._asking} labels wait for their ids to be looked up")
        self._asking += 1
        try:
            async with self._turn:
                block = self._known_block(query_id)
                if block is None:
                    block = await self._slowly(self._owner, query_id)
                    if block is not None:
                        self._blocks[block.first] = block
                        if len(self._blocks) > _BLOCKS:
                            self._blocks.popitem(last=False)
                return block
        finally:
            self._asking -= 1

    async def _slowly(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)

    async def _stored(self, label: tuple[int, Any, str, float]) -> Outcome:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((label, done))
        if self._committing is None:
            self._committing = loop.create_task(self._commit())
        return await done

    async def _commit(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                part, self._waiting = self._waiting[:_MAX_COMMIT], self._waiting[_MAX_COMMIT:]
                try:
                    outcomes = await loop.run_in_executor(
                        self._thread, self._labels.put_many, [label for label, _ in part]
                    )
                # Everybody who waits must hear of it, whatever it was.
                except BaseException as error:  # noqa: BLE001
                    for _, done in part:
                        if not done.done():
                            done.set_exception(error)
                    continue
                for (_, done), outcome in zip(part, outcomes, strict=True):
                    if not done.done():
                        done.set_result(outcome)
        finally:
            self._committing = None
