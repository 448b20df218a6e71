"""``[gate.privacy]``: personal data, proxies, and people who stand alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from mlguard.config.data_quality import INTERVAL_KEYS
from mlguard.config.policy import CheckPolicy, Family


class PiiCheck(CheckPolicy):
    """``[gate.privacy.pii]``."""

    allow: list[str] = Field(
        default_factory=list,
        description="Columns that may hold personal data, in the data and in the log.",
    )


class ProxiesCheck(CheckPolicy):
    """``[gate.privacy.proxies]``."""

    at_most: float = Field(
        0.8,
        gt=0.5,
        lt=1,
        description="Largest AUC at which the features tell groups of a sensitive column apart.",
    )


class AnonymityCheck(CheckPolicy):
    """``[gate.privacy.k_anonymity]``: judged where the table is written."""

    columns: list[str] = Field(
        min_length=1, description="Columns that together could single a person out."
    )
    at_least: int = Field(5, ge=2, description="Rows that must share each combination of values.")


class PrivacyGate(Family):
    """``[gate.privacy]``."""

    CHECKS = frozenset({"log"})
    TABLES = frozenset({"pii", "proxies", "k_anonymity"})
    WITHOUT_EFFECT: ClassVar[Mapping[str, frozenset[str]]] = {
        "log": INTERVAL_KEYS,
        "pii": INTERVAL_KEYS,
        "k_anonymity": INTERVAL_KEYS,
    }

    pii: PiiCheck = PiiCheck()
    proxies: ProxiesCheck = ProxiesCheck()
    k_anonymity: AnonymityCheck | None = Field(
        None, description="How many rows must look alike; absent: not judged."
    )
