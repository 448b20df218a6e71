"""A version is a manifest and the bytes of a model; its identity is what it does.

The digest covers what decides an answer: the model's bytes and format, the shape of its inputs
and outputs, thresholds, runtime and predictor code.  It does not cover what merely describes
the data of the day (ranges and categories seen) or says who may read the file, so the same
model is the same version when its data file is refreshed, and a quarantine cannot be left by
adding a row.  Nor does it cover the compiled bytes, which follow from the model's: a newer
converter makes no new version, and no way out of a quarantine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from mlguard.config import ModelTable
from mlguard.data.frames import file_digest
from mlguard.models.code import code_of
from mlguard.models.formats import Format, sniff
from mlguard.models.schema import InputSchema, Task

if TYPE_CHECKING:
    from mlguard.models.uncertainty import Uncertainty

#: What runs a model in a server.
Runtime = Literal["original", "linear", "onnx"]


def serving_sha256(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the bytes that a server loads, from a manifest as JSON."""
    return str(manifest.get("compiled_sha256") or manifest["model_sha256"])


def stored_sha256(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the SHA-256 of all bytes of a version, from a manifest as JSON."""
    return tuple(dict.fromkeys((serving_sha256(manifest), str(manifest["model_sha256"]))))


#: What the identity needs of each feature.
_SHAPE = ("name", "kind")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a version but the model's bytes.

    Attributes
    ----------
    model_sha256 : str
        SHA-256 of the model file, 64 hex digits.
    model_format : {"skops", "pickle", "onnx", "python"}
        What the file is.
    input_schema : dict
        :meth:`InputSchema.to_json`.
    thresholds : dict of str to float
        Score from which the positive class is answered, under ``"default"``; groups that have
        their own under keys like ``"sex=F"`` (:mod:`mlguard.models.thresholds`).
    runtime : {"original", "linear", "onnx"}
        What runs the model in a server: the file itself, or what it was compiled to.
    task : {"classification", "regression"}
        Kind of prediction.
    trusted_types : tuple of str
        Types the file may name beside the known ones.
    allow_pickle, allow_code : bool
        Whether the file may run code when it is read, or is code.
    predictor_code : dict of str to str
        SHA-256 of each file of a Python predictor, by name; empty for anything else.
    own_process : bool
        Whether a graph may run for as long as it likes, so that something must end it.
    compiled_sha256 : str
        SHA-256 of the compiled bytes, 64 hex digits; empty where the file itself is run.
    compilation : dict
        How the compiled bytes were held against the file, and why there are none
        (:class:`mlguard.models.compilation.Compilation`); empty before there was such a thing.
    uncertainty : dict
        What answers need to say how sure they are
        (:class:`mlguard.models.uncertainty.Uncertainty`); empty where they do not.
    """

    model_sha256: str
    model_format: Format
    input_schema: dict[str, Any]
    thresholds: dict[str, float] = field(default_factory=lambda: {"default": 0.5})
    runtime: Runtime = "original"
    task: Task = "classification"
    trusted_types: tuple[str, ...] = ()
    allow_pickle: bool = False
    allow_code: bool = False
    predictor_code: dict[str, str] = field(default_factory=dict)
    own_process: bool = False
    compiled_sha256: str = ""
    compilation: dict[str, Any] = field(default_factory=dict)
    uncertainty: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model_path: Path | str, schema: InputSchema, model: ModelTable) -> Self:
        """Describe a model file by an app's settings.

        Raises
        ------
        ModelFileError
            If the file is missing or no model.
        """
        model_format = sniff(model_path)
        return cls(
            file_digest(str(model_path)),
            model_format,
            schema.to_json(),
            dict(model.thresholds),
            task=schema.task,
            trusted_types=tuple(model.trusted_types),
            allow_pickle=model.allow_pickle,
            allow_code=model.allow_code,
            predictor_code=code_of(model_path) if model_format == "python" else {},
        )

    def saying(self, uncertainty: Uncertainty | None) -> Self:
        """Return the manifest of a version whose answers say how sure they are."""
        if uncertainty is None:
            return self
        return dataclasses.replace(self, uncertainty=uncertainty.to_json())

    @property
    def schema(self) -> InputSchema:
        """The input schema as an object."""
        return InputSchema.from_json(self.input_schema)

    @property
    def serving_sha256(self) -> str:
        """SHA-256 of the bytes that a server loads."""
        return self.compiled_sha256 or self.model_sha256

    @property
    def any_runtime(self) -> tuple[str, ...]:
        """Digests of this model and its settings, however it is run."""
        return tuple(dataclasses.replace(self, runtime=one).digest for one in get_args(Runtime))

    def compiled(self, runtime: Runtime, content: bytes, compilation: Mapping[str, Any]) -> Self:
        """Return the manifest of the same model, run as what it was compiled to.

        Parameters
        ----------
        runtime : {"original", "linear", "onnx"}
            What runs it.
        content : bytes
            The compiled model; empty for the original.
        compilation : mapping
            What came of compiling.
        """
        sha256 = hashlib.sha256(content).hexdigest() if content else ""
        return dataclasses.replace(
            self, runtime=runtime, compiled_sha256=sha256, compilation=dict(compilation)
        )

    @property
    def in_process(self) -> bool:
        """Whether a server may run the version in its own process: it can run no code."""
        return self.runtime != "original" or (self.model_format == "onnx" and not self.own_process)

    @property
    def digest(self) -> str:
        """SHA-256 of what decides an answer, 64 hex digits."""
        features = [
            {key: one[key] for key in _SHAPE} for one in self.input_schema.get("features", ())
        ]
        content = {
            "model_sha256": self.model_sha256,
            "model_format": self.model_format,
            "input_schema": {**self.input_schema, "features": features},
            "thresholds": {key: float(value) for key, value in self.thresholds.items()},
            "runtime": self.runtime,
            "task": self.task,
            "predictor_code": self.predictor_code,
        }
        if self.uncertainty:
            # Only where there is one: what was registered without keeps its digest.
            content["uncertainty"] = self.uncertainty
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON values."""
        return {**dataclasses.asdict(self), "trusted_types": list(self.trusted_types)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the manifest from :meth:`to_json`."""
        names = {spec.name for spec in dataclasses.fields(cls)}
        known = {key: value for key, value in document.items() if key in names}
        known["trusted_types"] = tuple(known.get("trusted_types", ()))
        return cls(**known)
