"""What a calibration found: figures of each monitor, what to change, and how that is told."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlguard.deploy.outcome import SCHEMA_VERSION
from mlguard.results import strict
from mlguard.stats.proportions import clopper_pearson_interval
from mlguard.wording import count, number, printable

#: Power that counts as "found".
POWER = 0.8
#: Characters of a line, but for the indent of the terminal.
_WIDTH = 76


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """How often a drift of one size was found, of how many."""

    effect: float
    found: int
    n: int

    @property
    def share(self) -> float:
        """Share of them that was found."""
        return self.found / self.n

    def to_json(self) -> dict[str, Any]:
        """Return it with its interval, as JSON values."""
        low, high = clopper_pearson_interval(self.found, self.n)
        return {"effect": self.effect, "power": self.share, "interval": [low, high], "n": self.n}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one monitor.

    Attributes
    ----------
    monitor, subject : str
        Whose.
    unit : str
        What one draw is: ``"a window of 500 rows"`` or ``"10,000 labels"``.
    false_alarms, n : int
        Draws without a drift, and those of them that raised an alarm.
    undecided : int
        Draws that gave no verdict.
    effect : str
        What the effects are, in words.
    power : tuple of Power
        Of each effect, rising.
    within : str
        How soon a drift had to be found.
    extra : dict
        More figures, as JSON values.
    """

    monitor: str
    unit: str
    false_alarms: int
    n: int
    effect: str
    power: tuple[Power, ...]
    within: str
    subject: str = ""
    undecided: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson interval of the false-alarm rate."""
        low, high = clopper_pearson_interval(self.false_alarms, self.n)
        return low, high

    @property
    def smallest(self) -> float | None:
        """Smallest effect that is found four times in five, and all larger ones too."""
        found = None
        for one in reversed(self.power):
            if one.share < POWER:
                break
            found = one.effect
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "monitor": self.monitor,
            "subject": self.subject,
            "unit": self.unit,
            "false_alarms": self.false_alarms,
            "n": self.n,
            "false_alarm_rate": self.false_alarms / self.n,
            "interval": list(self.interval),
            "undecided": self.undecided,
            "effect": self.effect,
            "within": self.within,
            "power": [one.to_json() for one in self.power],
            "smallest_detectable_effect": self.smallest,
            **self.extra,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A key of app.toml that would suit this history better."""

    table: str
    key: str
    value: float
    now: float
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "table": self.table, "key": self.key, "value": self.value, "now": self.now,
            "why": self.why,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What was measured of all monitors of an app.

    Attributes
    ----------
    app, model : str
        Whose monitors, and the version whose history it was.
    source : str
        Where history came from.
    n_rows, n_labels : int
        Its size.
    rho : float
        Lag-1 correlation of its losses, 0 where it does not stand out from chance.
    drawn : int
        Rows drawn together.
    measured : tuple of Measured
    suggestions : tuple of Suggestion
    """

    app: str
    model: str
    source: str
    n_rows: int
    n_labels: int
    rho: float
    drawn: int
    measured: tuple[Measured, ...]
    suggestions: tuple[Suggestion, ...]

    exit_code = 0

    @property
    def lines(self) -> tuple[str, ...]:
        """What was found, at most 80 columns wide."""
        runs = (
            f"losses come in runs (lag-1 correlation {number(self.rho, places=2)}), so "
            f"{self.drawn} rows are drawn together"
            if self.rho
            else "losses do not come in runs"
        )
        lines = textwrap.wrap(
            f"{self.app}, {printable(self.model, 40)}: drawn from {count(self.n_rows)} rows of "
            f"{self.source}, {count(self.n_labels)} of them labelled; {runs}.",
            _WIDTH,
        )
        for one in self.measured:
            lines += ["", *_of_one(one)]
        if not self.measured:
            lines += ["", "Too little history to measure anything: 100 labelled rows are needed."]
        lines.append("")
        for change in self.suggestions:
            lines += textwrap.wrap(
                f"Suggestion: [{change.table}] {change.key} = {change.value:g} (now "
                f"{change.now:g}): {change.why}.",
                _WIDTH,
                subsequent_indent="  ",
            )
        if not self.suggestions and self.measured:
            lines.append("No limit needs to be changed for false alarms.")
        return tuple(lines)

    @property
    def next_step(self) -> str:
        """The command to type next."""
        return f"mlguard config {self.app}"

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        document: dict[str, Any] = strict(
            {
                "schema_version": SCHEMA_VERSION,
                "command": "calibrate",
                "ok": True,
                "changed": False,
                "exit_code": self.exit_code,
                "app": self.app,
                "model": self.model,
                "history": {
                    "source": self.source,
                    "rows": self.n_rows,
                    "labels": self.n_labels,
                    "lag1_correlation": self.rho,
                    "drawn_together": self.drawn,
                },
                "monitors": [one.to_json() for one in self.measured],
                "suggestions": [one.to_json() for one in self.suggestions],
            }
        )
        return document


def _of_one(one: Measured) -> list[str]:
    name = f"{one.monitor}[{one.subject}]" if one.subject else one.monitor
    low, high = one.interval
    rate = number(one.false_alarms / one.n, places=3)
    lines = [
        f"{printable(name, 40)}: {one.false_alarms} false alarms in {one.n} draws of {one.unit},",
        f"  {rate} [{number(low, places=3)}, {number(high, places=3)}]"
        + (f"; {one.undecided} undecided" if one.undecided else ""),
    ]
    promised = one.extra.get("promised_rate")
    if promised is not None:
        kept, asked = one.extra["kept_run_length"], one.extra["average_run_length"]
        told = f"  promised at most {number(promised, places=3)}"
        if kept < asked * 0.9:
            told += f"; of {asked:,.0f} labels the runs leave about {kept:,.0f}"
        lines.append(told)
    found = "   ".join(f"{power.effect:g}: {power.share:.0%}" for power in one.power)
    smallest = "none of these" if one.smallest is None else f"{one.smallest:g}"
    lines += textwrap.wrap(
        f"found within {one.within}, by {one.effect}:", _WIDTH, initial_indent="  ",
        subsequent_indent="  ",
    )  # fmt: skip
    lines += [f"    {found}", f"  smallest found four times in five: {smallest}"]
    return lines
