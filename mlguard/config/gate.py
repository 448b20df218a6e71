"""``[gate]``: all families together."""

from __future__ import annotations

from mlguard.config.baseline import BaselineGate
from mlguard.config.behaviour import BehaviourGate
from mlguard.config.data_quality import DataQualityGate
from mlguard.config.fairness import FairnessGate
from mlguard.config.privacy import PrivacyGate
from mlguard.config.serving import ServingGate
from mlguard.config.values import Table


class GateTables(Table):
    """``[gate]``."""

    data_quality: DataQualityGate = DataQualityGate()
    fairness: FairnessGate = FairnessGate()
    baseline: BaselineGate = BaselineGate()
    behaviour: BehaviourGate = BehaviourGate()
    serving: ServingGate = ServingGate()
    privacy: PrivacyGate = PrivacyGate()
