"""What the data gives away about people: personal data, proxies, and people who stand alone.

``pii``            no column holds names, mails, phones, cards or ids (:mod:`mlguard.data.pii`)
``log``            nor does what the prediction log has stored; where there is a log
``proxies``        the features do not tell the groups of a sensitive column apart
``k_anonymity``    every combination of some columns is shared by several rows; where asked for

All warn unless app.toml says otherwise.  Results name columns and counts, never values.
"""

from __future__ import annotations

from pathlib import Path

from mlguard.checks.anonymity import k_anonymity
from mlguard.checks.counted import no_such_column
from mlguard.checks.declaration import Declaration, Item, from_finding, policy_of
from mlguard.checks.evidence import Subject
from mlguard.checks.logged import logged_data
from mlguard.checks.proxies import proxies
from mlguard.config import AppSettings, PiiCheck, ProjectSettings
from mlguard.data.pii import PersonalData, find_personal_data
from mlguard.results import CheckResult, Enforcement, Finding, Measurement, Verdict
from mlguard.wording import SMALL_GROUP, count, listed, printable

PII, LOG, PROXIES = "privacy.pii", "privacy.log", "privacy.proxies"
#: Rows whose values are looked at.
_MOST_ROWS = 10_000
_NAMED = 4


class Privacy:
    """Whether data and model give people away."""

    def declare(self, settings: AppSettings, project_root: Path) -> Declaration:
        """Declare what there is: data, a stored log, sensitive columns, asked-for anonymity."""
        gate = settings.gate.privacy
        items, absent = [], []
        subjects = {
            "pii": [""],
            # Before anybody was answered there is no log, and nothing to say about it.
            "log": [""] if _log_of(project_root, settings.name).is_dir() else [],
            "proxies": list(settings.data.sensitive),
            "k_anonymity": [""] if gate.k_anonymity is not None else [],
        }
        for check, named in subjects.items():
            policy = policy_of(gate, check, default=Enforcement.WARN)
            if not policy.enabled:
                absent.append(f"privacy.{check}: switched off in app.toml")
            elif not named and check == "proxies":
                absent.append("privacy.proxies: [data] sensitive names no attribute")
            items += [
                Item(id=f"privacy.{check}", subject=one, policy=policy)
                for one in named
                if policy.enabled
            ]
        return Declaration(items=tuple(items), not_applicable=tuple(absent))

    def run(self, item: Item, subject: Subject) -> CheckResult:
        """Judge one item."""
        gate = subject.settings.gate.privacy
        if item.id == PII:
            return from_finding(item, personal_data(subject, gate.pii))
        if item.id == LOG:
            return from_finding(item, logged_data(subject.project, subject.settings))
        if item.id == PROXIES:
            return from_finding(item, proxies(subject, item.subject, gate.proxies))
        assert gate.k_anonymity is not None  # an item only where it is asked for
        return from_finding(item, k_anonymity(subject, gate.k_anonymity))


def _log_of(project_root: Path, app: str) -> Path:
    return ProjectSettings(root=project_root).log_dir / app


def personal_data(subject: Subject, policy: PiiCheck) -> Finding:
    """Judge whether a column of the data holds personal data."""
    settings = subject.settings
    found: dict[str, PersonalData] = {}
    looked_at = 0
    allowed = {*policy.allow, settings.data.target, settings.data.time}
    for part, scan in (("test", subject.test_scan), ("train", subject.train_scan)):
        if scan is None:
            continue
        columns = [
            name
            for name in scan.names
            if name not in allowed and scan[name].column.kind in ("text", "category", "integer")
        ]
        frame = subject.sample(part, _MOST_ROWS, columns) if columns else None
        looked_at = max(looked_at, len(columns))
        for name in columns:
            assert frame is not None  # there are columns
            one = find_personal_data(name, frame[name].dropna().astype(str))
            if one is not None and name not in found:
                found[name] = one
    if not looked_at:
        return no_such_column(PII, subject.test_scan.n_rows)
    seen = [name for name in found if name in subject.candidate.features]
    logged = [
        name for name in seen if settings.log.inputs != "none" and name not in settings.log.redact
    ]
    return pii_finding(
        found,
        features=seen,
        logged=logged,
        n=subject.test_scan.n_rows,
        looked_at=looked_at,
        row_id=settings.data.id,
    )


def pii_finding(
    found: dict[str, PersonalData],
    *,
    features: list[str],
    logged: list[str],
    n: int,
    looked_at: int,
    row_id: str = "",
    allowed: str = "[gate.privacy.pii] allow",
    seen: bool = True,
) -> Finding:
    """Return what was found as a finding: a feature that is personal fails, others warn.

    Parameters
    ----------
    found : dict
        Columns that seem to hold personal data, and what.
    features : list of str
        Those of them that the model sees.
    logged : list of str
        Those that the prediction log would keep.
    n : int
        Rows.
    looked_at : int
        Columns that could hold any.
    row_id : str
        Column that identifies a row; it may be personal, and is named last.
    allowed : str
        Where a column is allowed.
    seen : bool
        Whether there is a model that sees the features.
    """
    order = sorted(found, key=lambda name: (name not in features, name == row_id))
    told = [f"{printable(name, 60)!r} ({found[name].told})" for name in order]
    verdict = Verdict.FAILED if features else Verdict.WARNED if found else Verdict.PASSED
    if not found:
        columns = "column" if looked_at == 1 else "columns"
        summary = (
            f"no sign of personal data in the {count(looked_at)} {columns} that could hold any"
        )
    else:
        verb = "seems" if len(found) == 1 else "seem"
        summary = f"{listed(told, _NAMED)} {verb} to hold personal data"
        if features and seen:
            summary += f"; the model sees {listed([repr(printable(one, 60)) for one in features])}"
    step = ""
    if logged:
        names = ", ".join(f'"{printable(one, 60)}"' for one in logged)
        step = (
            f"leave it out of [data] features, or keep it out of the log: [log] redact = [{names}]"
        )
    elif found:
        names = ", ".join(f'"{printable(one, 60)}"' for one in order)
        step = f"remove the column, or allow it by name: {allowed} = [{names}]"
    return Finding(
        id=PII,
        verdict=verdict,
        summary=summary,
        value=float(len(found)),
        limit=0.0,
        n=n,
        reason="personal_data" if found else "",
        next_step=step,
        measurements=tuple(
            Measurement(
                name=found[name].kind,
                group=printable(name, 60),
                value=found[name].found / found[name].n,
                n=found[name].n,
            )
            for name in order
            if found[name].found >= SMALL_GROUP
        ),
        details={"columns": [printable(name) for name in order]},
    )
