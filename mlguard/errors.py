"""Every error mlguard raises on purpose, and what it means to the caller.

::

    MlguardError                 something mlguard knows how to explain          exit 3
    ├── UsageError (ValueError)  the caller asked for something impossible       exit 2
    │   ├── ConfigError          mlguard.toml or app.toml                         exit 2
    │   ├── DataError            a data file is missing, unreadable, misshapen    exit 2
    │   ├── ModelFileError       the file holds no model that mlguard can read    exit 2
    │   └── NotFoundError        no such app, version, incident, query id         exit 2
    ├── RefusedError             a gate, a hold or a quarantine said no           exit 1
    │   └── UntrustedModelError  the file wants to run code that nobody allowed   exit 1
    ├── ConflictError            somebody else was faster; trying again is safe   exit 4
    ├── UndecidedError           too little evidence to decide                    exit 5
    ├── DegradedError            a human is needed                                exit 7
    ├── PendingError             still in progress                                exit 8
    ├── IntegrityError           stored bytes do not match their digest           exit 3
    ├── RegistryError            the database or the artifact store failed        exit 3
    ├── ModelRunError            a model raised, hung, died or answered nonsense  exit 3
    └── PluginError              an entry point could not be loaded               exit 3

A message says what was found and what was expected; ``hint`` says what to do next; the
numbers behind it travel as attributes in ``data``.  A requirement that is not met is a
*result* (see :mod:`mlguard.results`), never an exception.
"""

from __future__ import annotations

from typing import Any, ClassVar


class MlguardError(Exception):
    """Base of every error that mlguard raises on purpose.

    Parameters
    ----------
    message : str
        What was found and what was expected, in one or two sentences.
    hint : str, optional
        What to do next, as an instruction.
    **data
        The facts of the message as JSON-compatible values.
    """

    exit_code: ClassVar[int] = 3
    http_status: ClassVar[int] = 500
    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    def to_json(self) -> dict[str, Any]:
        """Return the ``error`` object of the JSON document of INTERFACE."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
        }


class UsageError(MlguardError, ValueError):
    """The caller asked for something that cannot be done."""

    exit_code = 2
    http_status = 400
    code = "usage"


class ConfigError(UsageError):
    """A settings file has an unknown key, a wrong type or an impossible value."""

    code = "config"


class DataError(UsageError):
    """A data file is missing, unreadable or does not have the expected columns."""

    code = "data"


class ModelFileError(UsageError):
    """The file holds no model that mlguard can read."""

    code = "model_file"


class NotFoundError(UsageError, LookupError):
    """No such app, version, incident or query id."""

    http_status = 404
    code = "not_found"


class RefusedError(MlguardError):
    """A gate, a hold, a quarantine or a policy said no; nothing was changed."""

    exit_code = 1
    http_status = 409
    code = "refused"


class UntrustedModelError(RefusedError):
    """The model file would run code that nobody allowed."""

    code = "untrusted_model"


class ConflictError(MlguardError):
    """Somebody else changed the state first; trying again is safe."""

    exit_code = 4
    http_status = 409
    code = "conflict"
    retryable = True


class UndecidedError(MlguardError):
    """There is too little evidence to decide."""

    exit_code = 5
    http_status = 409
    code = "undecided"


class DegradedError(MlguardError):
    """The app is not well and needs a human."""

    exit_code = 7
    http_status = 503
    code = "degraded"


class PendingError(MlguardError):
    """The operation was decided but has not reached every server yet."""

    exit_code = 8
    http_status = 503
    code = "pending"
    retryable = True


class IntegrityError(MlguardError):
    """Stored bytes do not match the digest they are stored under."""

    code = "integrity"


class RegistryError(MlguardError):
    """The registry database or the artifact store failed; nothing was decided."""

    http_status = 503
    code = "registry"
    retryable = True


class ModelRunError(MlguardError):
    """A model raised, hung, died, or answered something that is no prediction."""

    code = "model_run"


class PluginError(MlguardError):
    """An entry point could not be loaded, or two distributions claim one id."""

    code = "plugin"
