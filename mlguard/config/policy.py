"""What every check and every family of checks may be told: how it decides and what it may block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from mlguard.config.values import Table
from mlguard.results import Enforcement


class CheckPolicy(Table):
    """What stands in ``[gate.<family>]`` and ``[gate.<family>.<check>]``; the narrower wins."""

    enabled: bool = Field(True, description="Whether the check is an item of the gate.")
    enforcement: Enforcement = Field(Enforcement.BLOCK, description="What a bad verdict does.")
    decide: Literal["evidence", "proof", "estimate"] = Field(
        "evidence", description="How an interval is held against a limit."
    )
    on_inconclusive: Enforcement = Field(
        Enforcement.BLOCK, description="What an undecided verdict does: block or warn."
    )
    confidence_level: float = Field(0.95, gt=0, lt=1, description="Of each stated interval.")
    family_error: float = Field(
        0.05, gt=0, lt=1, description="Error rate over all groups or features of one check."
    )


class Family(CheckPolicy):
    """One ``[gate.<family>]`` with a sub-table for each of its checks."""

    #: Names that may stand as ``[gate.<family>.<name>]``.
    CHECKS: ClassVar[frozenset[str]] = frozenset()
    #: Checks whose table has keys of its own: fields that are a :class:`CheckPolicy`.
    TABLES: ClassVar[frozenset[str]] = frozenset()
    #: Keys of a policy that a check would not honour; its own table may not hold them.
    WITHOUT_EFFECT: ClassVar[Mapping[str, frozenset[str]]] = {}
    #: Checks of which there may be many, each a table with a name of its own.
    NAMED: ClassVar[frozenset[str]] = frozenset()
    #: Keys of :class:`CheckPolicy` that mean nothing here and are refused, and why.
    WITHOUT: ClassVar[Mapping[str, str]] = {}

    checks: dict[str, CheckPolicy] = Field(default_factory=dict, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _narrower_tables(cls, data: object) -> object:
        """Turn ``[gate.family.check]`` into a policy that inherits the family's keys."""
        if not isinstance(data, Mapping):
            return data
        tables = [data, *(data[name] for name in sorted(cls.CHECKS & set(data)))]
        for key in cls.WITHOUT:
            if any(isinstance(one, Mapping) and key in one for one in tables):
                raise ValueError(f"{key} means nothing here: {cls.WITHOUT[key]}")
        for name, keys in cls.WITHOUT_EFFECT.items():
            idle = sorted(keys & set(data.get(name) or ()))
            if idle:
                raise ValueError(f"{idle[0]} has no effect on {name}: leave it out")
        own = {key: value for key, value in data.items() if key not in cls.CHECKS}
        shared = {key: own[key] for key in CheckPolicy.model_fields if key in own}
        for name in cls.CHECKS & set(data):
            if not isinstance(data[name], Mapping):
                # pydantic collects ValueError only.
                raise ValueError(f"[{name}] is a table")  # noqa: TRY004
            own.setdefault("checks", {})[name] = {**shared, **data[name]}
        cls._inherit(own, shared)
        for name in cls.NAMED & set(own):
            if isinstance(own[name], Mapping):
                own[name] = {
                    key: {**shared, **one} if isinstance(one, Mapping) else one
                    for key, one in own[name].items()
                }
        return own

    @classmethod
    def _inherit(cls, own: dict[str, Any], shared: Mapping[str, Any]) -> None:
        """Give the tables that have keys of their own those of the family."""
        for name in cls.TABLES:
            if isinstance(own.get(name), Mapping):
                own[name] = {**shared, **own[name]}
            elif name not in own and cls.model_fields[name].default is not None:
                # A check that nobody wrote a table for has the family's keys all the same.
                own[name] = dict(shared)

    def narrower(self, check: str) -> CheckPolicy | None:
        """Return what is in force by a check's own table; None where it has none."""
        found = getattr(self, check) if check in self.TABLES else self.checks.get(check)
        return found if isinstance(found, CheckPolicy) else None

    def policy(self, check: str) -> CheckPolicy:
        """Return the policy in force for one check of this family."""
        found = self.narrower(check)
        if found is not None:
            return found
        return CheckPolicy(**{key: getattr(self, key) for key in CheckPolicy.model_fields})
