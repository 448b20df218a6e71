"""A predict request's body → rows in the model's order, or a 400 in Clipper's words.

The body is JSON whatever its Content-Type says.  Rows come as one of six input types:

========== ============================================ ========================================
type       one row                                      with ``strict_types``
========== ============================================ ========================================
doubles    array of finite numbers                      each written as a real: ``2.0``, not ``2``
floats     the same, within the range of float32        the same
ints       array of whole numbers in int64, ``2.0`` too whole numbers in int32, ``2.0`` refused
strings    one string, kept byte for byte
bytes      one base64 string
table      object ``{"feature": value}``, or an array   a boolean is no 0 or 1, an integer
           in the order of the features                 column takes no ``2.0``
========== ============================================ ========================================

A boolean is never a number.  ``null`` is a missing value in a table and an error elsewhere.
Keys of a table row that the model does not use are ignored, so that a caller may send the
whole record.  One bad row refuses the request whole, naming row and column, before the model
sees any of it; so that whatever fails later is not the caller's fault.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from mlguard.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlguard.config import InputType
    from mlguard.models.schema import Feature

_FLOAT32_MAX = 3.4028234663852886e38
_INT32 = (-(2**31), 2**31 - 1)
_INT64 = (-(2**63), 2**63 - 1)
#: Longest piece of a caller's value that an error repeats.
_SHOWN = 40


class BadRequestError(UsageError):
    """The caller's request cannot be answered; ``kind`` and ``cause`` are the JSON reply.

    Parameters
    ----------
    kind : str
        ``"Json error"`` or ``"Query processing error"``, as Clipper says.
    cause : str
        What is wrong, naming the field.
    """

    code = "bad_request"

    def __init__(self, kind: str, cause: str) -> None:
        super().__init__(cause)
        self.kind = kind
        self.cause = cause


def json_error(what: str) -> BadRequestError:
    """Return the error of a body that cannot be read as the app's input."""
    return BadRequestError("Json error", f"Error parsing JSON: {what}")


def unknown_version(version: str, app: str) -> BadRequestError:
    """Return the error of a request for a version that does not serve."""
    return BadRequestError(
        "Query processing error",
        f"Requested version: {version} does not exist for model: {app}",
    )


class _Envelope(msgspec.Struct):
    """The keys that mean something; ``input`` wins over ``input_batch``, others are ignored."""

    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input_batch: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    version: str | int | None = None
    uid: str | int | None = None
    groups: dict[str, str | int | float | bool | None] | None = None


@dataclass(slots=True)
class PredictRequest:
    """One decoded body.

    Attributes
    ----------
    batch : bool
        Whether it came as ``input_batch``.
    raw : bytes
        JSON of the row or of the rows; typed by the version that answers.
    version, uid : str or None
        As the caller named them.
    groups : dict
        Group of each sensitive attribute; never shown to the model.
    """

    batch: bool
    raw: bytes
    version: str | None = None
    uid: str | None = None
    groups: dict[str, str] = field(default_factory=dict)


_ENVELOPE = msgspec.json.Decoder(_Envelope)
#: What a request says that names nothing but its row.
PLAIN = PredictRequest(batch=False, raw=b"")


def read_request(body: bytes) -> PredictRequest:
    """Read the envelope of a predict request.

    Raises
    ------
    BadRequestError
        If the body is no JSON object, has neither ``input`` nor ``input_batch``, or one of
        the other known keys has the wrong type.
    """
    try:
        envelope = _ENVELOPE.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise json_error(_because(error)) from None
    if envelope.input is not msgspec.UNSET:
        batch, raw = False, envelope.input
    elif envelope.input_batch is not msgspec.UNSET:
        batch, raw = True, envelope.input_batch
    else:
        raise json_error("the object has neither `input` nor `input_batch`")
    return _request(envelope, batch=batch, raw=bytes(raw))


def _request(envelope: Any, *, batch: bool, raw: bytes = b"") -> PredictRequest:
    # As the text of the same value in a data file, by which groups are told apart.
    groups = {
        name: str(value) for name, value in (envelope.groups or {}).items() if value is not None
    }
    return PredictRequest(
        batch=batch,
        raw=raw,
        version=None if envelope.version is None else str(envelope.version),
        uid=None if envelope.uid is None else str(envelope.uid),
        groups=groups,
    )


def _typed_envelope(row: Any) -> type[msgspec.Struct]:
    """Return :class:`_Envelope` with the type of its rows."""
    unset = msgspec.UNSET
    return msgspec.defstruct(
        "Envelope",
        [
            ("input", row | msgspec.UnsetType, unset),
            ("input_batch", list[row] | msgspec.UnsetType, unset),
            ("version", str | int | None, None),
            ("uid", str | int | None, None),
            ("groups", dict[str, str | int | float | bool | None] | None, None),
        ],
    )


class RowReader:
    """Reads the rows of one version (or of an app without any).

    Parameters
    ----------
    kind : str
        The app's input type.
    features : sequence of Feature
        In the model's order; empty where unknown, then any length goes.
    strict : bool, default False
        ``strict_types`` of the app.
    """

    def __init__(
        self, kind: InputType, features: Sequence[Feature] = (), *, strict: bool = False
    ) -> None:
        self.kind = kind
        self.features = tuple(features)
        self.strict = strict
        self._check: Callable[[Any], Any]
        row: Any
        if kind in ("doubles", "floats"):
            row = list[int | float] if strict else list[float]
            # Doubles that are no strict ones need nothing but the right length.
            self._check = self._reals if strict or kind == "floats" else self._sized
        elif kind == "ints":
            row = list[int] if strict else list[int | float]
            self._check = self._integers
        elif kind == "table":
            row = dict[str, Any] | list[Any]
            self._check = self._record
            self._cells = [_cell_reader(one.kind, strict=strict) for one in self.features]
        else:
            row = str
            self._check = _base64 if kind == "bytes" else _same
        self._one = msgspec.json.Decoder(row)
        self._many = msgspec.json.Decoder(list[row])
        self._whole: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_typed_envelope(row))
        self._categories = [
            frozenset(one.categories) if one.categories else None for one in self.features
        ]

    def decode(self, body: bytes) -> tuple[PredictRequest, list[Any]] | None:
        """Read envelope and rows in one pass over the body.

        Returns
        -------
        tuple of PredictRequest and list, or None
            What :func:`read_request` and :meth:`read` return; None where they have an error to
            tell.
        """
        try:
            found = self._whole.decode(body)
            if found.input is not msgspec.UNSET:
                rows = [self._check(found.input)]
            elif found.input_batch is not msgspec.UNSET:
                rows = [self._check(row) for row in found.input_batch]
            else:
                return None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        if found.uid is None and found.version is None and found.groups is None:
            return PLAIN, rows
        return _request(found, batch=found.input is msgspec.UNSET), rows

    def read(self, request: PredictRequest) -> list[Any]:
        """Return the rows: lists in feature order, or strings, or bytes.

        Raises
        ------
        BadRequestError
            If a row has the wrong type or length, or holds a value that does not fit.
        """
        name = "input_batch" if request.batch else "input"
        try:
            decoded = (self._many if request.batch else self._one).decode(request.raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise json_error(_because(error, name)) from None
        if request.batch:
            return self.check(decoded, name)
        try:
            return [self._check(decoded)]
        except ValueError as error:
            raise json_error(f"{name}: {error}") from None

    def check(self, rows: Sequence[Any], name: str) -> list[Any]:
        """Return rows that were decoded already as :meth:`read` does, by the same rules.

        Parameters
        ----------
        rows : sequence
            Lists of finite numbers, records, strings: as the type of input says.
        name : str
            What a refusal calls them.

        Raises
        ------
        BadRequestError
            If a row has the wrong length, or holds a value that does not fit.
        """
        checked = []
        for number, row in enumerate(rows):
            try:
                checked.append(self._check(row))
            except ValueError as error:
                raise json_error(f"{name}[{number}]: {error}") from None
        return checked

    def fits(self, row: Any) -> bool:
        """Whether a row holds only values that the version's reference data had.

        A row with an unseen category or a missing value is answered all the same; a model's
        error on it is then not held against the model.
        """
        if self.kind != "table":
            return True
        return all(
            (known is None or value in known) if value is not None else feature.missing
            for value, known, feature in zip(row, self._categories, self.features, strict=True)
        )

    def _length(self, row: Sequence[Any]) -> None:
        if self.features and len(row) != len(self.features):
            raise ValueError(f"{len(row)} values, the model takes {len(self.features)}")
        if not row:
            raise ValueError("an empty array is no row")

    def _sized(self, row: list[float]) -> list[float]:
        if not self.features or len(row) != len(self.features):
            self._length(row)
        return row

    def _name(self, index: int) -> str:
        return f" ({self.features[index].name})" if self.features else ""

    def _reals(self, row: list[Any]) -> list[float]:
        self._length(row)
        for index, value in enumerate(row):
            if self.strict and type(value) is not float:
                raise ValueError(
                    f"value {index}{self._name(index)} is {value}, "
                    f"strict_types takes reals only, like {value}.0"
                )
            if self.kind == "floats" and not -_FLOAT32_MAX <= value <= _FLOAT32_MAX:
                raise ValueError(f"value {index}{self._name(index)} does not fit 32 bits")
        return row

    def _integers(self, row: list[Any]) -> list[int]:
        self._length(row)
        low, high = _INT32 if self.strict else _INT64
        for index, value in enumerate(row):
            if type(value) is float:
                if not value.is_integer():
                    raise ValueError(f"value {index}{self._name(index)} is {value}, not whole")
                row[index] = int(value)
            if not low <= row[index] <= high:
                raise ValueError(
                    f"value {index}{self._name(index)} does not fit {32 if self.strict else 64} "
                    "bits"
                )
        return row

    def _record(self, row: Any) -> list[Any]:
        if isinstance(row, Mapping):
            if not self.features:
                return [row]
            missing = [one.name for one in self.features if one.name not in row]
            if missing:
                raise ValueError(
                    ("column " if len(missing) == 1 else "columns ")
                    + ", ".join(repr(name) for name in missing)
                    + " missing"
                )
            values = [row[one.name] for one in self.features]
        else:
            self._length(row)
            values = row
            if not self.features:
                return [values]
        for index, (feature, reader) in enumerate(zip(self.features, self._cells, strict=True)):
            if values[index] is None:
                continue
            try:
                values[index] = reader(values[index])
            except ValueError as error:
                raise ValueError(f"column {feature.name!r}: {error}") from None
        return values


def _same(row: str) -> str:
    return row


def _base64(row: str) -> bytes:
    try:
        return base64.b64decode(row, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from None


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"expected a number, got {_shown(value)}")
    return float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or not _INT64[0] <= value <= _INT64[1]:
        raise ValueError(f"expected a whole number, got {_shown(value)}")
    return value


def _nearly_whole(value: Any) -> int:
    return _whole(int(value) if type(value) is float and value.is_integer() else value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"expected true or false, got {_shown(value)}")
    return value


def _nearly_boolean(value: Any) -> bool:
    return _boolean(bool(value) if type(value) in (int, float) and value in (0, 1) else value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"expected a string, got {_shown(value)}")
    return value


def _time(value: Any) -> str:
    try:
        dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        shown = _shown(value)
        raise ValueError(f"expected a time like 2026-01-31T12:00:00Z, got {shown}") from None
    return str(value)


def _cell_reader(kind: str, *, strict: bool) -> Callable[[Any], Any]:
    """Return what reads one cell that is not missing: its value, or ValueError."""
    readers: dict[str, Callable[[Any], Any]] = {
        "number": _number,
        "integer": _whole if strict else _nearly_whole,
        "boolean": _boolean if strict else _nearly_boolean,
        "time": _time,
    }
    return readers.get(kind, _text)


def _because(error: Exception, place: str = "") -> str:
    """Return msgspec's message with its path starting at the request's key."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = str(error) or "not UTF-8"
    if isinstance(error, UnicodeDecodeError):
        text = "the body is not UTF-8"
    if not place:
        return text
    if "`$" in text:
        return text.replace("`$", f"`$.{place}")
    return f"{text} - at `$.{place}`"
