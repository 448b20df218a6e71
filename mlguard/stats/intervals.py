"""Every interval by one name.

=======================  ==============================================  ==================
of what                  function                                        made in
=======================  ==============================================  ==================
one proportion           ``wilson_interval, clopper_pearson_interval``   ``proportions``
difference, ratio        ``newcombe_difference, mover_ratio``            ``proportions``
paired difference        ``newcombe_paired``, test ``mcnemar_exact``     ``paired``
mean of bounded losses   ``mean_interval``                               ``means``
the same, any sample     ``betting_interval, BettingSequence``           ``betting``
area under ROC           ``delong``                                      ``delong``
=======================  ==============================================  ==================
"""

from mlguard.stats.betting import BettingSequence, betting_interval
from mlguard.stats.delong import AreaEstimate, delong
from mlguard.stats.interval import Interval, Side, critical_value, tail_error
from mlguard.stats.means import mean_interval
from mlguard.stats.paired import PairedTable, mcnemar_exact, newcombe_paired
from mlguard.stats.proportions import (
    clopper_pearson_interval,
    mover_difference,
    mover_ratio,
    mover_ratio_limits,
    newcombe_difference,
    wilson_interval,
    wilson_limits,
)

__all__ = [
    "AreaEstimate",
    "BettingSequence",
    "Interval",
    "PairedTable",
    "Side",
    "betting_interval",
    "clopper_pearson_interval",
    "critical_value",
    "delong",
    "mcnemar_exact",
    "mean_interval",
    "mover_difference",
    "mover_ratio",
    "mover_ratio_limits",
    "newcombe_difference",
    "newcombe_paired",
    "tail_error",
    "wilson_interval",
    "wilson_limits",
]
