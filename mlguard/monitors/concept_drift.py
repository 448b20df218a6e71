"""``concept_drift``: whether the loss has risen above what the version was accepted with.

Labels are taken in the order in which they arrive, whenever they arrive, by an e-detector
(:mod:`mlguard.stats.sequential`): it may be looked at after every label for ever, and its
alarms carry a promise of how rare false ones are.  There is one detector for each version and
generation, because a rollback must not inherit its predecessor's losses.

After an alarm the monitor stays in alarm.  It goes on judging windows of labels, FAILED while
their mean loss is above theta; a window that is proven below theta ends the alarm, and a new
detector starts from nothing.

A detector of river's may stand in its place (``detector = "ADWIN"``).  It makes no promise, and
it finds changes of either direction: it starts again after each, and an improvement to what is
acceptable warns instead of failing.

With ``relearn`` a lasting improvement lowers what is acceptable (:mod:`.relearning`).

Verdicts that labels cannot carry are INCONCLUSIVE: where fewer labels came than were due
(``no_labels``), or where one of many sources suddenly sends most of them (``suspect_source``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlguard.config import AppSettings, ConceptDriftMonitor, FairnessMonitor
from mlguard.errors import UsageError
from mlguard.monitors.budget import own_run_length
from mlguard.monitors.losses import acceptable_loss, reference_scale, row_losses
from mlguard.monitors.maturity import immature
from mlguard.monitors.relearning import Relearning
from mlguard.monitors.river_detectors import RiverDetector, estimate_shift
from mlguard.monitors.sources import USUAL_SOURCES, sent_too_many, with_sources
from mlguard.monitors.window import WindowData
from mlguard.results import MonitorResult, Verdict, Window
from mlguard.stats.means import mean_interval
from mlguard.stats.run_length import LEAST_N, kept_run_length, proven_correlation
from mlguard.stats.sequential import ChangePoint, EDetector, estimate_change, lag1_correlation
from mlguard.wording import estimate, moment, number

#: Labels below which nothing is said.
N_MIN = 20
#: The latest labels are kept, so that an alarm can say when it began and on which rows.
RECENT = 512

_RECENT = ("query_id", "seq", "time", "loss", "source")
_ID = "concept_drift.loss"


class ConceptDrift:
    """E-detector of a rise of the loss.

    Parameters
    ----------
    settings : ConceptDriftMonitor
        ``[monitor.concept_drift]``.
    reference : mapping
        The version's reference; its ``"loss"`` is read.
    app : AppSettings
        The app that is watched.
    check, subject : str, optional
        What its results are called, where it is the detector of one group.
    average_run_length : float, optional
        Labels to a false alarm of all detectors of the app together.  Default: that of the
        settings.
    """

    id: ClassVar[str] = "concept_drift"
    clock: ClassVar[str] = "labels"
    sequential: ClassVar[bool] = True

    def __init__(
        self,
        settings: ConceptDriftMonitor | FairnessMonitor,
        reference: Mapping[str, Any],
        app: AppSettings,
        *,
        check: str = _ID,
        subject: str = "",
        average_run_length: float | None = None,
    ) -> None:
        self.settings = settings
        self.app = app
        self.check = check
        self.subject = subject
        if average_run_length is None:
            assert isinstance(settings, ConceptDriftMonitor)
            average_run_length = settings.average_run_length
        self.average_run_length = average_run_length
        self.detector = getattr(settings, "detector", "e-detector")
        self._relearning = Relearning() if getattr(settings, "relearn", False) else None
        self.scale = reference_scale(reference)
        self.theta: float | None = None
        self.why_not = ""
        try:
            self.theta = acceptable_loss(reference, tolerance=settings.tolerance)
        except UsageError as error:
            self.why_not = error.message
        self.n = 0
        self._restart()
        self._sources: Counter[str] = Counter()

    def _restart(self) -> None:
        self._detector = None if self.theta is None else self._new_detector(self.theta)
        self._alarm: dict[str, Any] | None = None
        self._recent: dict[str, list[Any]] = {name: [] for name in _RECENT}
        self._open_window()

    def _new_detector(self, theta: float) -> EDetector | RiverDetector:
        if self.detector != "e-detector":
            return RiverDetector(self.detector)
        return EDetector(
            theta,
            average_run_length=own_run_length(self.average_run_length, self.app),
            block=self.settings.block,
        )

    def _open_window(self) -> None:
        self._count = 0
        self._total = 0.0
        self._opened: float | None = None
        self._span: tuple[float, float] | None = None
        self._window_sources: Counter[str] = Counter()

    # --- judging -------------------------------------------------------------------------

    def judge(self, window: WindowData) -> list[MonitorResult]:
        """Take labelled rows in order of arrival and say what they add.

        Parameters
        ----------
        window : WindowData
            Newly labelled rows of one version in one generation.

        Returns
        -------
        list of MonitorResult
            One for each window of labels that closed, and one for an alarm.
        """
        losses, judged = row_losses(window, task=self.app.app.task, scale=self.scale)
        places = np.flatnonzero(judged)
        places = places[np.argsort(window.seq[places], kind="stable")]
        results: list[MonitorResult] = []
        start = 0
        while start < len(places):
            stop = self._closes(window.arrived[places[start:]])
            if stop == 0:
                results.append(self._close(window))
                continue
            part = places[start : start + stop]
            start += self._take(window, part, losses[part])
            if self._tells or self._count >= self.settings.window_rows:
                results.append(self._close(window))
        return results

    def _closes(self, arrived: npt.NDArray[np.float64]) -> int:
        """Return how many of the next labels still belong to the open window."""
        if self._opened is None:
            self._opened = float(arrived[0])
        room = self.settings.window_rows - self._count
        if self._ripens:
            # Many sources: the alarm is told when there are enough labels to tell them apart.
            room = min(room, max(1, N_MIN - self._n_since()))
        late = np.flatnonzero(arrived[:room] >= self._opened + self.settings.window)
        return int(late[0]) if late.size else min(room, len(arrived))

    def _take(
        self, window: WindowData, places: npt.NDArray[np.intp], losses: npt.NDArray[np.float64]
    ) -> int:
        taken, alarm = len(places), False
        # A detector of river's has started again by itself.
        if self._detector is not None and (self._alarm is None or not self._promises):
            found = self._detector.update(losses)
            if found is not None:
                taken, alarm = found + 1, True
        places, losses = places[:taken], losses[:taken]
        self.n += taken
        self._count += taken
        self._total += float(losses.sum())
        times = window.time[places]
        low, high = self._span or (np.inf, -np.inf)
        self._span = min(low, float(times.min())), max(high, float(times.max()))
        for name, values in (
            ("query_id", window.query_id[places]),
            ("seq", window.seq[places]),
            ("time", times),
            ("loss", losses),
            ("source", window.source[places]),
        ):
            self._recent[name] = [*self._recent[name], *values.tolist()][-RECENT:]
        self._window_sources.update(str(one) for one in window.source[places])
        if alarm:
            self._alarm = self._describe_alarm()
        return taken

    @property
    def _promises(self) -> bool:
        return self.detector == "e-detector"

    @property
    def _tells(self) -> bool:
        """Whether an alarm is to be told now, not when the window closes."""
        enough = len(self._sources) < USUAL_SOURCES or self._n_since() >= N_MIN
        return self._ripens and enough

    @property
    def _ripens(self) -> bool:
        return self._untold and self._alarm is not None and "tried" not in self._alarm

    def _describe_alarm(self) -> dict[str, Any]:
        """Return when the alarm began, as far as the labels that are kept can tell."""
        assert self.theta is not None
        losses = np.asarray(self._recent["loss"], float)
        if not self._promises and self._alarm is not None:
            # What came before the last change is another story.
            losses = losses[-max(1, self._n_since()) :]
        change = estimate_change(losses, self.theta) if self._promises else estimate_shift(losses)
        index = 0 if change is None else change.index
        times = self._recent["time"][-len(losses) :]
        ids = self._recent["query_id"][-len(losses) :]
        before = losses[:index] if index >= N_MIN else losses
        found: dict[str, Any] = {} if self._promises else {"before": float(before.mean())}
        return {
            **found,
            "labels": self.n,
            "change_point": {
                "time": times[index],
                "query_id": ids[index],
                "label": self.n - (len(losses) - index),
                "earliest": _at(times, change, "earliest", index),
                "latest": _at(times, change, "latest", index),
            },
            "delay_labels": len(losses) - index,
            "lag1_correlation": _rounded(lag1_correlation(before)),
            "correlation_n": len(before),
            "seq": self._recent["seq"][-len(losses) :][index],
        }

    def _close(self, window: WindowData) -> MonitorResult:
        result = self._finding(window)
        if self._alarm is not None:
            # Where labels are missing it could not be told: a later window will.
            self._alarm["tried"] = True
        if self._suspect() is None:
            self._sources = with_sources(self._sources, self._window_sources.elements())
        elif self._untold:
            # The evidence came from whoever is suspected.
            self._restart()
        if result.verdict is Verdict.PASSED and self._alarm is not None:
            # The loss is proven acceptable again: watch it from nothing.
            self._restart()
        elif result.verdict is Verdict.PASSED:
            self._learn()
        self._open_window()
        return result

    def _learn(self) -> None:
        """Lower what is acceptable where the loss has been lower for long."""
        if self._relearning is None or self.theta is None:
            return
        lower = self._relearning.take(
            self._total, self._count, theta=self.theta, tolerance=self.settings.tolerance
        )
        if lower is not None:
            # Evidence against another limit is none against this one.
            self.theta = lower
            self._detector = self._new_detector(lower)

    def _finding(self, window: WindowData) -> MonitorResult:
        span = self._span or (window.window.start, window.window.end)
        facts: dict[str, Any] = {
            "id": self.check,
            "subject": self.subject,
            "version": window.version,
            "sequential": True,
            "limit": self.theta,
            "n": self._count,
            "n_min": N_MIN,
            "window": Window(
                start=span[0],
                end=span[1],
                n_rows=self._count,
                n_labels=self._count,
                generation=window.generation,
            ),
            "details": self._details(),
        }
        if self.theta is None:
            return MonitorResult(
                verdict=Verdict.INCONCLUSIVE,
                summary=f"not judged: {self.why_not}",
                reason="no_reference",
                next_step=f"mlguard deploy {self.app.name}",
                **facts,
            )
        unripe = immature(
            self.check,
            window.coverage,
            min_coverage=self.app.labels.min_coverage,
            version=window.version,
            window=facts["window"],
            subject=self.subject,
            sequential=True,
        )
        if unripe is not None:
            return unripe
        suspect = self._suspect()
        if suspect is not None:
            return MonitorResult(
                verdict=Verdict.INCONCLUSIVE,
                summary=f"{suspect}: not judged",
                reason="suspect_source",
                **facts,
            )
        return self._verdict(facts)

    def _verdict(self, facts: dict[str, Any]) -> MonitorResult:
        assert self.theta is not None
        value = self._total / self._count
        if self._alarm is not None and self._untold:
            self._alarm["told"] = True
            return self._alarm_result(facts)
        interval = mean_interval(
            self._recent["loss"][-self._count :],
            confidence_level=self.settings.confidence_level,
        )
        facts |= {"value": value, "interval": (interval.low, interval.high)}
        words = f"mean loss {estimate(value, tuple(interval), self._count)}"
        limit = f"acceptable up to {number(self.theta)}"
        if self._alarm is None:
            few = self.n < N_MIN
            return MonitorResult(
                verdict=Verdict.INCONCLUSIVE if few else Verdict.PASSED,
                summary=f"{words}; {limit}; no alarm after {self.n} labels",
                reason="few" if few else "",
                **facts,
            )
        if value > self.theta:
            verdict, reason = Verdict.FAILED, "limit_exceeded"
        elif interval.high > self.theta:
            verdict, reason = Verdict.WARNED, "not_proven"
        else:
            verdict, reason = Verdict.PASSED, ""
        return MonitorResult(
            verdict=verdict,
            summary=f"{words}; {limit}; in alarm since label {self._alarm['labels']}",
            reason=reason,
            next_step="" if verdict is Verdict.PASSED else f"mlguard report {self.app.name}",
            **facts,
        )

    def _alarm_result(self, facts: dict[str, Any]) -> MonitorResult:
        assert self._alarm is not None
        assert self.theta is not None
        since = self._recent["loss"][-self._n_since() :]
        value = float(np.mean(since))
        interval = mean_interval(since, confidence_level=self.settings.confidence_level)
        change = self._alarm["change_point"]
        facts |= {
            "value": value,
            "interval": (interval.low, interval.high),
            "n": len(since),
        }
        words = (
            f"mean loss {estimate(value, tuple(interval), len(since))} since about "
            f"{moment(change['time'])}; acceptable up to {number(self.theta)}; "
        )
        if not self._promises:
            better = value <= min(self.theta, self._alarm["before"])
            return MonitorResult(
                verdict=Verdict.WARNED if better else Verdict.FAILED,
                summary=f"{words}{self.detector} found a change, and promises nothing about false "
                "alarms",
                reason="changed" if better else "limit_exceeded",
                next_step=f"mlguard report {self.app.name}",
                **facts,
            )
        return MonitorResult(
            verdict=Verdict.FAILED,
            summary=f"{words}{self._promise()}",
            reason="limit_exceeded",
            next_step=f"mlguard report {self.app.name}",
            **facts,
        )

    def _promise(self) -> str:
        """Say how rare false alarms are, as far as the errors before the change let it."""
        assert self._alarm is not None
        rho = self._alarm["lag1_correlation"]
        kept = self._kept(rho)
        words = f"a false alarm is expected once in {kept:,.0f} labels or less often"
        if kept >= self.average_run_length:
            return words
        return f"{words} (errors come in runs, lag-1 correlation {rho:.2f})"

    def _kept(self, rho: float | None) -> float:
        """Return the promise of the app that is left at a correlation."""
        of_one = own_run_length(self.average_run_length, self.app)
        n = len(self._recent["loss"]) if self._alarm is None else self._alarm["correlation_n"]
        proven = proven_correlation(rho or 0.0, n)
        kept = kept_run_length(of_one, proven, block=self.settings.block)
        return self.average_run_length * kept / of_one

    def _details(self) -> dict[str, Any]:
        found: dict[str, Any] = {"labels": self.n, "detector": self.detector}
        if self._promises:
            rho = None
            if self._alarm is not None:
                rho = self._alarm["lag1_correlation"]
            elif len(self._recent["loss"]) >= LEAST_N:
                rho = _rounded(lag1_correlation(self._recent["loss"]))
            found |= {
                "average_run_length": self.average_run_length,
                "block": self.settings.block,
                "lag1_correlation": rho,
                "kept_run_length": round(self._kept(rho)),
            }
        if self._alarm is not None:
            found["alarm"] = {
                key: value for key, value in self._alarm.items() if key not in ("told", "tried")
            }
        return found

    # --- sources -------------------------------------------------------------------------

    def _suspect(self) -> str | None:
        """Say which source sent too many of the labels that an alarm, or a window, rests on."""
        sources = self._window_sources.elements()
        if self._untold:
            sources = iter(self._recent["source"][-self._n_since() :])
        return sent_too_many(sources, len(self._sources), at_most=self.app.labels.max_source_share)

    # --- state ---------------------------------------------------------------------------

    @property
    def alarmed(self) -> bool:
        """Whether the monitor is in alarm."""
        return self._alarm is not None

    @property
    def evidence_share(self) -> float:
        """How far the evidence is on its way to an alarm, in log, from 0 to 1."""
        if not isinstance(self._detector, EDetector):
            return 0.0
        return self._detector.evidence_share

    def evidence(self, subject: str = "") -> list[int]:
        """Return the query ids of the labels since the change, or of the latest while calm."""
        del subject
        return [int(one) for one in self._recent["query_id"][-self._n_since() :]]

    def _n_since(self) -> int:
        """Count the labels since the change, as far as they are kept; all of them while calm."""
        if self._alarm is None:
            return RECENT
        return int(self._alarm["delay_labels"]) + self.n - int(self._alarm["labels"])

    def _restored(self, kept: Mapping[str, Any]) -> EDetector | RiverDetector | None:
        """Return the detector of a snapshot, None where it answers another question."""
        now = self._detector
        if now is None or kept.get("detector", "e-detector") != self.detector:
            return None
        if isinstance(now, RiverDetector):
            try:
                return RiverDetector.restore(kept)
            except UsageError:
                return None
        same = (kept["theta"], kept["average_run_length"], kept["block"]) == (
            now.theta,
            now.average_run_length,
            now.block,
        )
        return EDetector.restore(kept) if same else None

    @property
    def _untold(self) -> bool:
        return self._alarm is not None and "told" not in self._alarm

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a restart needs, as JSON values."""
        return {
            "n": self.n,
            "detector": None if self._detector is None else self._detector.snapshot(),
            "alarm": self._alarm,
            "recent": self._recent,
            "sources": dict(self._sources),
            "theta": self.theta,
            "relearning": None if self._relearning is None else self._relearning.snapshot(),
            "window": {
                "count": self._count,
                "total": self._total,
                "opened": self._opened,
                "span": self._span,
                "sources": dict(self._window_sources),
            },
        }

    def restore(self, document: Mapping[str, Any]) -> None:
        """Go on from :meth:`snapshot`.

        Where the acceptable loss or the promise changed in between, the detector starts anew:
        evidence against another limit is none against this one.
        """
        self.n = document["n"]
        self._sources = Counter(document["sources"])
        kept = document["detector"]
        if self._relearning is not None and document.get("relearning") and self.theta is not None:
            self._relearning = Relearning.restore(document["relearning"])
            if document["relearning"]["accepted"] == self.theta:
                self.theta = document["theta"]
                self._restart()
        detector = None if kept is None else self._restored(kept)
        if detector is None:
            return
        self._detector = detector
        self._alarm = document["alarm"]
        self._recent = {name: list(document["recent"][name]) for name in _RECENT}
        window = document["window"]
        self._count, self._total = window["count"], window["total"]
        self._opened = window["opened"]
        self._span = None if window["span"] is None else tuple(window["span"])
        self._window_sources = Counter(window["sources"])


def _rounded(rho: float) -> float | None:
    return None if np.isnan(rho) else round(rho, 3)


def _at(times: Sequence[float], change: ChangePoint | None, which: str, index: int) -> float:
    place = index if change is None else getattr(change, which)
    return times[min(place, len(times) - 1)]
