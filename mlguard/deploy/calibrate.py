"""How often these monitors cry wolf, and what they can see, on this app's own history.

History is drawn from again and again (in blocks where errors come in runs): as it was, which
gives the false-alarm rate, and with a drift of known size put in, which gives the power.  From
the two follow the smallest change that a monitor finds four times in five, and, where a limit
does not suit the data, another that would.  Seeds are fixed: the same history gives the same
figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlguard.config import AppSettings
from mlguard.deploy import calibrate_draws as draws
from mlguard.deploy.calibrate_figures import Measured, Power, Suggestion
from mlguard.deploy.judging import Judging
from mlguard.deploy.rehearsal import untimed
from mlguard.monitors.budget import own_run_length
from mlguard.monitors.losses import acceptable_loss, reference_scale, row_losses
from mlguard.monitors.river_detectors import RiverDetector
from mlguard.monitors.window import WindowData
from mlguard.results import MonitorResult, Verdict
from mlguard.stats.proportions import clopper_pearson_interval
from mlguard.stats.run_length import block_needed, kept_run_length, proven_correlation
from mlguard.stats.sequential import lag1_correlation
from mlguard.wording import Step

#: Windows drawn without a drift, and with each effect.
WINDOWS, WINDOWS_EACH = 200, 60
#: Detectors run without a rise and for how many labels; and with each rise.
DETECTORS, HORIZON, DETECTORS_EACH = 200, 10_000, 200
#: Detectors of river's, which look at one value at a time.
_SLOW_DETECTORS, _SLOW_HORIZON = 40, 5_000
#: False-alarm rate of a window above which another limit is proposed.
TOO_OFTEN = 0.01
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_SHIFTS = (0.1, 0.25, 0.5, 1.0, 2.0)
_SEED = 20_240_601

Progress = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Calibration:
    """The measurement of all monitors of one app.

    Attributes
    ----------
    settings : AppSettings
        The app's.
    reference : mapping
        What the version was accepted with.
    rows : WindowData
        History, in order.
    """

    settings: AppSettings
    reference: Mapping[str, Any]
    rows: WindowData
    rho: float = 0.0
    losses: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    suggestions: list[Suggestion] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = untimed(self.settings, n_rows=max(len(self.rows), HORIZON))
        found, judged = row_losses(
            self.rows,
            task=self.settings.app.task,
            scale=reference_scale(self.reference),
        )
        self.losses = found[judged]
        self.rho = proven_correlation(lag1_correlation(self.losses), self.losses.size)

    @property
    def drawn(self) -> int:
        """Rows drawn together."""
        return draws.block_length(self.rho, len(self.rows))

    def run(self, *, progress: Progress = lambda _: None) -> list[Measured]:
        """Measure every monitor that history can be drawn for."""
        judging = Judging(self.settings)
        found: list[Measured] = []
        names = judging.names()
        for done, name in enumerate(names):
            monitor = judging.build(name, self.reference)
            if monitor is None:
                continue
            progress(Step(f"calibrating {name}", done, len(names)))
            if monitor.sequential:
                found += self._sequential(name)
            else:
                found += self._windowed(name, judging)
        return found

    # --- windows -------------------------------------------------------------------------

    def _windowed(self, name: str, judging: Judging) -> list[Measured]:
        told = self._drift(name)
        if told is None:
            return []
        words, inject, effects = told
        monitor = judging.build(name, self.reference)
        assert monitor is not None
        table = judging.table(name)
        source = self.rows
        if monitor.clock == "labels":
            source = source.take(source.labelled)
        if len(source) < draws_needed(table.window_rows):
            return []
        rng = np.random.default_rng(_SEED)

        def judged(effect: float) -> list[MonitorResult]:
            drawn = draws.places(len(source), table.window_rows, self.drawn, rng)
            rows = draws.as_arriving(source.take(drawn))
            if effect:
                rows = inject(rows, effect, rng)
            return judging.ask(name, monitor.judge, rows)

        calm = [judged(0.0) for _ in range(WINDOWS)]
        if not any(calm):
            return []
        power = tuple(
            Power(
                effect=effect,
                found=sum(_failed(judged(effect)) for _ in range(WINDOWS_EACH)),
                n=WINDOWS_EACH,
            )
            for effect in effects
        )
        self._suggest_limit(name, calm)
        return [
            Measured(
                monitor=name,
                unit=f"a window of {table.window_rows:,} rows",
                false_alarms=sum(map(_failed, calm)),
                n=WINDOWS,
                undecided=sum(map(_undecided, calm)),
                effect=words,
                power=power,
                within="one window",
            )
        ]

    def _drift(self, name: str) -> tuple[str, draws.Inject, tuple[float, ...]] | None:
        """Return what is put in for a monitor: in words, how, and how much."""
        regression = self.settings.app.task == "regression"
        by = self.settings.monitor.fairness.by or self.settings.data.sensitive
        if name == "data_drift" and self.rows.columns:
            words = "standard deviations that one feature moves (of a category: share replaced)"
            return words, draws.shift_feature, _SHIFTS
        if name in ("prediction_drift", "label_drift"):
            labels = name == "label_drift"
            what = "labels" if labels else "answers"
            if regression:
                inject = draws.move_labels if labels else draws.move_answers
                return f"standard deviations that all {what} move", inject, _SHIFTS
            inject = draws.tilt_labels if labels else draws.tilt_answers
            return f"share of {what} that become the rarest class", inject, _SHARES
        if name == "service":
            return "share of rows without an answer", draws.break_model, _SHARES
        if name == "fairness" and by and not regression:
            words = f"share of one group of {by[0]} that is answered as another class"
            return words, draws.hurt_group(by[0]), _SHARES
        return None

    def _suggest_limit(self, name: str, calm: list[list[MonitorResult]]) -> None:
        failed = sum(map(_failed, calm))
        if clopper_pearson_interval(failed, len(calm)).low <= TOO_OFTEN:
            return
        worst = [max(found, key=lambda one: one.verdict.severity) for found in calm if found]
        lead = next(one for one in worst if one.verdict is Verdict.FAILED)
        key = _KEYS.get(name) or str(lead.details.get("statistic", ""))
        now = getattr(Judging(self.settings).table(name), key, None)
        # Where the interval's near end lies, not the estimate: that is what fails a window.
        near = [
            one.interval[0]
            for one in worst
            if one.interval is not None and one.limit == lead.limit and one.value is not None
        ]
        if now is None or not near:
            return
        value = math.ceil(100 * float(np.quantile(near, 1 - TOO_OFTEN / 2))) / 100
        if value > now:
            why = f"{failed} of {len(calm)} windows without a drift failed"
            self.suggestions.append(
                Suggestion(table=f"monitor.{name}", key=key, value=value, now=now, why=why)
            )

    # --- labels one by one ---------------------------------------------------------------

    def _sequential(self, name: str) -> list[Measured]:
        if name == "concept_drift":
            table = self.settings.monitor.concept_drift
            if table.detector != "e-detector":
                return self._river(table.detector)
            self._suggest_block(table.average_run_length, table.block)
            return self._detectors(name, "", self.losses, self.reference, table.block)
        if name != "fairness.loss":
            return []
        found: list[Measured] = []
        scale = reference_scale(self.reference)
        known = self.reference.get("groups") or {}
        table_of = self.settings.monitor.fairness
        all_losses, judged = row_losses(self.rows, task=self.settings.app.task, scale=scale)
        for attribute in dict.fromkeys(table_of.by or self.settings.data.sensitive):
            groups = self.rows.attribute(attribute)
            for value, figures in known.get(attribute, {}).items():
                losses = all_losses[judged & (groups == value)]
                reference = {"loss": {**figures, "scale": scale}}
                subject = f"{attribute}={value}"
                found += self._detectors(name, subject, losses, reference, table_of.block)
        return found

    def _detectors(
        self,
        name: str,
        subject: str,
        losses: npt.NDArray[np.float64],
        reference: Mapping[str, Any],
        block: int,
    ) -> list[Measured]:
        table = self.settings.monitor.concept_drift
        of_groups = name != "concept_drift"
        tolerance = (self.settings.monitor.fairness if of_groups else table).tolerance
        try:
            theta = acceptable_loss(reference, tolerance=tolerance)
        except ValueError:
            return []
        if losses.size < draws_needed(0):
            return []
        asked = own_run_length(table.average_run_length, self.settings)
        window = Judging(self.settings).table(name).window_rows
        rng = np.random.default_rng(_SEED)

        def lengths(rise: float, repeats: int, horizon: int) -> npt.NDArray[np.int64]:
            return draws.run_lengths(
                losses, theta, asked, block=block, drawn=self.drawn, repeats=repeats,
                horizon=horizon, rise=rise, rng=rng,
            )  # fmt: skip

        calm = lengths(0.0, DETECTORS, HORIZON)
        mean = float(losses.mean())
        power, delays = [], []
        for rise in _SHARES:
            # So many of those that were right become wrong that the mean rises by the effect.
            hit = min(1.0, rise / max(1 - mean, 1e-9))
            after = lengths(hit, DETECTORS_EACH, window)
            in_time = after <= window
            power.append(Power(effect=rise, found=int(in_time.sum()), n=DETECTORS_EACH))
            delays.append(float(after[in_time].mean()) if in_time.any() else None)
        kept = kept_run_length(asked, self.rho, block=block)
        return [
            Measured(
                monitor=name,
                subject=subject,
                unit=f"{HORIZON:,} labels",
                false_alarms=int((calm <= HORIZON).sum()),
                n=DETECTORS,
                effect="rise of the mean loss",
                power=tuple(power),
                within=f"{window:,} labels",
                extra={
                    "theta": theta,
                    "loss": mean,
                    "average_run_length": table.average_run_length,
                    "promised_rate": min(1.0, HORIZON / asked),
                    "kept_run_length": table.average_run_length * kept / asked,
                    "mean_delays": delays,
                },
            )
        ]

    def _suggest_block(self, asked: float, block: int) -> None:
        needed = block_needed(own_run_length(asked, self.settings), self.rho)
        if needed > block:
            why = f"errors come in runs (lag-1 correlation {self.rho:.2f})"
            self.suggestions.append(
                Suggestion(
                    table="monitor.concept_drift", key="block", value=needed, now=block, why=why
                )
            )

    def _river(self, detector: str) -> list[Measured]:
        window = self.settings.monitor.concept_drift.window_rows
        rng = np.random.default_rng(_SEED)

        def alarms(rise: float, horizon: int) -> int:
            hits = 0
            for _ in range(_SLOW_DETECTORS):
                before = self.losses[draws.places(self.losses.size, window, self.drawn, rng)]
                after = self.losses[draws.places(self.losses.size, horizon, self.drawn, rng)].copy()
                after[rng.random(horizon) < rise] = 1.0
                one = RiverDetector(detector)
                place = 0
                # It learns what is usual on a window; alarms of that time are not counted.
                while place < window:
                    found = one.update(before[place:])
                    place = window if found is None else place + found + 1
                hits += one.update(after) is not None
            return hits

        if self.losses.size < draws_needed(0):
            return []
        mean = float(self.losses.mean())
        return [
            Measured(
                monitor="concept_drift",
                unit=f"{_SLOW_HORIZON:,} labels",
                false_alarms=alarms(0.0, _SLOW_HORIZON),
                n=_SLOW_DETECTORS,
                effect="rise of the mean loss",
                power=tuple(
                    Power(
                        effect=rise,
                        found=alarms(min(1.0, rise / max(1 - mean, 1e-9)), window),
                        n=_SLOW_DETECTORS,
                    )
                    for rise in _SHARES
                ),
                within=f"{window:,} labels",
                extra={"detector": detector, "loss": mean},
            )
        ]


#: Keys of the limits that belong to a monitor whatever statistic failed.
_KEYS = {"fairness": "at_most", "service": "model_errors"}


def draws_needed(window_rows: int) -> int:
    """Return how many rows of history there must be to draw windows from."""
    return max(100, window_rows // 4)


def _failed(found: list[MonitorResult]) -> bool:
    return any(one.verdict is Verdict.FAILED for one in found)


def _undecided(found: list[MonitorResult]) -> bool:
    decided = (Verdict.PASSED, Verdict.WARNED, Verdict.FAILED)
    return not any(one.verdict in decided for one in found)
