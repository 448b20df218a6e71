"""Bodies of the Open Inference Protocol v2 ↔ tensors; pure, bytes in, bytes out.

A body is JSON, or JSON followed by raw tensors (the *binary tensor data extension*): the header
``Inference-Header-Content-Length`` says where the JSON ends, and each tensor that has no
``data`` says how many of the bytes after it are its own.  Raw numbers are little-endian in row
order; a raw BYTES element is its length, as 32 bits, and then itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mlguard.errors import UsageError

#: struct codes, little-endian; BYTES have none.
_CODES = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
FLOATING = ("FP16", "FP32", "FP64")
_LENGTH = struct.Struct("<I")


class TensorError(UsageError):
    """A v2 request that cannot be read; the message names the tensor."""

    http_status = 400
    code = "bad_tensor"


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: Any = msgspec.UNSET


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The JSON of a request.

    Attributes
    ----------
    inputs, outputs : list
        Tensors that came, and those that are wanted; none: all of them.
    id : str
        Given back in the answer.
    parameters : dict
        ``uid`` and ``groups`` mean what they mean in Clipper's contract.
    """

    inputs: list[_Input]
    outputs: list[_Output] = []
    id: str = ""
    parameters: dict[str, Any] = {}


_REQUEST = msgspec.json.Decoder(InferRequest)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as a flat list of Python values."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    values: list[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def read_infer(body: bytes, header_length: int | None) -> tuple[InferRequest, list[Tensor]]:
    """Return a request and its input tensors.

    Parameters
    ----------
    body : bytes
        Inflated.
    header_length : int or None
        Length of the JSON at its start; None: all of it.

    Raises
    ------
    TensorError
        If it cannot be read.
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        raise TensorError("Inference-Header-Content-Length is longer than the body")
    try:
        request = _REQUEST.decode(body if header_length is None else body[:header_length])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TensorError(f"the request cannot be read: {error}") from None
    rest = memoryview(b"" if header_length is None else body[header_length:])
    tensors = []
    for one in request.inputs:
        size = one.parameters.get("binary_data_size")
        if size is None:
            tensors.append(_from_json(one))
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise TensorError(f"{one.name}: binary_data_size is no number of bytes that came")
        tensors.append(_from_bytes(one, bytes(rest[:size])))
        rest = rest[size:]
    if len(rest):
        raise TensorError(f"{len(rest)} bytes after the tensors belong to none of them")
    return request, tensors


def _count(one: _Input) -> int:
    if one.datatype != "BYTES" and one.datatype not in _CODES:
        known = ", ".join((*_CODES, "BYTES"))
        raise TensorError(f"{one.name}: datatype {one.datatype!r} is none of {known}")
    if not one.shape or len(one.shape) > 2 or min(one.shape) < 0:
        raise TensorError(f"{one.name}: shape {one.shape} is neither [n] nor [n, m]")
    return math.prod(one.shape)


def _from_json(one: _Input) -> Tensor:
    n = _count(one)
    if one.data is msgspec.UNSET:
        raise TensorError(f"{one.name}: has neither data nor binary_data_size")
    values = list(_flat(one.data))
    if len(values) != n:
        raise TensorError(f"{one.name}: {len(values)} values, and its shape {one.shape} has {n}")
    if one.datatype == "BYTES":
        good: tuple[type, ...] = (str,)
    elif one.datatype == "BOOL":
        good = (bool,)
    else:
        good = (int, float) if one.datatype in FLOATING else (int,)
    for index, value in enumerate(values):
        if type(value) not in good and not (value is None and one.datatype in FLOATING):
            raise TensorError(f"{one.name}: value {index} is no {one.datatype}")
    return Tensor(one.name, tuple(one.shape), one.datatype, values)


def _flat(data: Any) -> Sequence[Any]:
    if not isinstance(data, list):
        return [data]
    if not any(isinstance(value, list) for value in data):
        return data
    return [cell for row in data for cell in (row if isinstance(row, list) else [row])]


def _from_bytes(one: _Input, raw: bytes) -> Tensor:
    n = _count(one)
    if one.datatype == "BYTES":
        values = _elements(one.name, raw, n)
    else:
        layout = struct.Struct(f"<{n}{_CODES[one.datatype]}") if n <= len(raw) else None
        if layout is None or layout.size != len(raw):
            raise TensorError(f"{one.name}: {len(raw)} bytes, and its shape {one.shape} has {n}")
        values = list(layout.unpack(raw))
    return Tensor(one.name, tuple(one.shape), one.datatype, values)


def _elements(name: str, raw: bytes, n: int) -> list[Any]:
    values = []
    at = 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            break
        (size,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size + size
        values.append(raw[at - size : at])
    if at != len(raw) or len(values) != n:
        raise TensorError(f"{name}: its bytes are not {n} elements with their lengths")
    return values


def write_infer(
    model: str,
    version: str,
    request: InferRequest,
    offered: Sequence[Tensor],
    parameters: Mapping[str, Any],
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON where raw tensors follow.

    Parameters
    ----------
    model, version : str
        Who answered.
    request : InferRequest
        Says which outputs are wanted, and in which form.
    offered : sequence of Tensor
        The outputs, those that are wanted among them; none wanted: all of them.
    parameters : mapping
        Of the answer.
    """
    all_binary = request.parameters.get("binary_data_output") is True
    wanted = {one.name: one.parameters.get("binary_data", all_binary) for one in request.outputs}
    by_name = {one.name: one for one in offered}
    has_raw = False
    tail = bytearray()
    outputs: list[dict[str, Any]] = []
    for name in wanted or by_name:
        tensor = by_name[name]
        output: dict[str, Any] = {
            "name": name,
            "shape": list(tensor.shape),
            "datatype": tensor.datatype,
        }
        said = dict(tensor.parameters)
        if wanted.get(name, all_binary):
            raw = _raw(tensor.datatype, tensor.values)
            said["binary_data_size"] = len(raw)
            has_raw = True
            tail += raw
        else:
            output["data"] = tensor.values
        if said:
            output["parameters"] = said
        outputs.append(output)
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id:
        document["id"] = request.id
    head = msgspec.json.encode(document | {"parameters": dict(parameters), "outputs": outputs})
    return (head + bytes(tail), len(head)) if has_raw else (head, None)


def _raw(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype != "BYTES":
        return struct.pack(f"<{len(values)}{_CODES[datatype]}", *values)
    parts = []
    for value in values:
        text = value.encode()
        parts += [_LENGTH.pack(len(text)), text]
    return b"".join(parts)
