"""Whether what the prediction log has stored looks like personal data.

The columns of the data are judged before anybody is served (``privacy.pii``); this is about what
callers have sent since: a mail address in a text, a name as ``uid``, an id among the ``groups``.
A column that ``[log] redact`` names today may have been written before it did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlguard.config import AppSettings, ProjectSettings
from mlguard.results import Finding, Measurement, Verdict
from mlguard.wording import SMALL_GROUP, count, duration, listed, printable

if TYPE_CHECKING:
    from mlguard.data.log_privacy import LogLook

CHECK = "privacy.log"


def logged_data(project: ProjectSettings, settings: AppSettings) -> Finding:
    """Judge whether what the prediction log has stored looks like personal data.

    Raises
    ------
    DataError
        If a closed segment is damaged.
    """
    from mlguard.data.log_privacy import look_into
    from mlguard.data.prediction_log import PredictionLog

    return log_finding(settings, look_into(PredictionLog(project.log_dir), settings.name))


def log_finding(settings: AppSettings, look: LogLook) -> Finding:
    """Return what was found as a finding.

    A column that is written with every row fails, one that is redacted by now warns: its old
    rows go when ``[log] retention`` has passed.

    Parameters
    ----------
    settings : AppSettings
        The app's: what it redacts, keeps and allows.
    look : LogLook
        What was found.
    """
    if not look.n_rows:
        return Finding(
            id=CHECK,
            verdict=Verdict.SKIPPED,
            summary="the log has no rows yet",
            n=0,
            reason="no_rows",
        )
    found = {
        name: one for name, one in look.found.items() if name not in settings.gate.privacy.pii.allow
    }
    written = [
        name
        for name in found
        if name not in settings.log.redact
        and (name not in look.inputs or settings.log.inputs != "none")
    ]
    older = [name for name in found if name not in written]
    rows = f"the newest {count(look.n_rows)} rows of the log"
    if not found:
        return Finding(
            id=CHECK,
            verdict=Verdict.PASSED,
            summary=f"no sign of personal data in {rows}",
            value=0.0,
            limit=0.0,
            n=look.n_rows,
        )
    order = [*written, *older]
    told = [f"{printable(one, 60)!r} ({found[one].told})" for one in order]
    says = f"in {rows}, {listed(told)} {'seems' if len(order) == 1 else 'seem'} to be personal data"
    if older:
        which = f"{_named(older)} " if written else ""
        says += f"; {which}kept out by now, but in older rows still"
    return Finding(
        id=CHECK,
        verdict=Verdict.FAILED if written else Verdict.WARNED,
        summary=says,
        value=float(len(found)),
        limit=0.0,
        n=look.n_rows,
        reason="personal_data",
        next_step=_advice(settings, written),
        measurements=tuple(
            Measurement(
                name=found[one].kind,
                group=printable(one, 60),
                value=found[one].found / found[one].n,
                n=found[one].n,
            )
            for one in order
            if found[one].found >= SMALL_GROUP
        ),
        details={"columns": [printable(one) for one in order], "written": written},
    )


def _advice(settings: AppSettings, written: list[str]) -> str:
    kept = duration(settings.log.retention)
    forget = (
        f"rows that are stored go after {kept} ([log] retention), a person's at once: "
        f"mlguard log erase {settings.name} --uid UID"
    )
    if not written:
        return forget
    names = ", ".join(f'"{printable(one, 60)}"' for one in [*settings.log.redact, *written])
    return f"keep it out of the log: [log] redact = [{names}]; {forget}"


def _named(columns: list[str]) -> str:
    return listed([repr(printable(one, 60)) for one in columns])
