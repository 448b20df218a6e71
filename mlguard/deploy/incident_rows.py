"""The rows of an incident, read from the prediction log when they are asked for.

An incident keeps figures, never rows: what retention let go, what somebody had erased and what
``[log] redact`` keeps out is not found here either.  What is shown to people leaves out more:
sensitive columns, the id column, and columns whose values look like names, mails, phones, cards
or ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlguard.config import AppSettings, ProjectSettings
from mlguard.data.labels import LabelStore, default_url
from mlguard.data.log_store import project_log
from mlguard.data.pii import find_personal_data
from mlguard.deploy.explaining import rows_before
from mlguard.errors import UndecidedError
from mlguard.monitors.losses import reference_scale, row_losses
from mlguard.monitors.window import WindowData, window_data

if TYPE_CHECKING:
    from mlguard.registry import Incident, Registry

#: Example rows of a side, and their columns, at most.
EXAMPLES, COLUMNS = 3, 8
#: Rows of an incident's window that are read at most; the latest ones.
MOST_ROWS = 20_000
#: How far back rows without labels are looked for, in seconds.
_BACK_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IncidentRows:
    """Rows on which a version failed, and those before them.

    Attributes
    ----------
    after : WindowData
        Rows of the incident's window, labelled by now.
    before : WindowData or None
        Rows that the same version answered before; None where none are left.
    loss_after, loss_before : ndarray of float64
        Loss of each row, NaN where it has none.
    scale : float
        Absolute error of a regression that counts as a loss of 1.
    """

    after: WindowData
    before: WindowData | None
    loss_after: npt.NDArray[np.float64]
    loss_before: npt.NDArray[np.float64]
    scale: float


def read_rows(
    project: ProjectSettings, settings: AppSettings, registry: Registry, incident: Incident
) -> IncidentRows:
    """Read the rows of an incident and those before.

    Raises
    ------
    UndecidedError
        If none are left, or the incident rests on no rows.
    """
    window = _window(incident)
    if window is None or incident.version_id is None:
        raise UndecidedError(
            f"incident {incident.id} rests on no logged rows",
            hint=f"mlguard history {incident.app}",
            app=incident.app,
            incident=incident.id,
        )
    log = project_log(project)
    table = log.read(
        incident.app,
        version_id=incident.version_id,
        generation=window.get("generation", incident.generation),
        since=window["start"],
        until=math.nextafter(window["end"], math.inf),
    )
    table = table.slice(max(0, table.num_rows - MOST_ROWS))
    if not table.num_rows:
        raise UndecidedError(
            f"the rows of incident {incident.id} are not in the prediction log any more",
            hint="[log] retention says how long rows are kept, [log] inputs which",
            app=incident.app,
            incident=incident.id,
        )
    reference = registry.reference(incident.app, registry.version_by_id(incident.version_id).digest)
    scale = reference_scale(reference or {})
    labels = LabelStore(default_url(project.log_dir, incident.app))
    try:
        ids = table.column("query_id").to_pylist()
        after = _of_subject(
            window_data(table, version=incident.version, labels=labels.get(ids)), incident
        )
        before = rows_before(
            log,
            labels,
            incident.app,
            after,
            version_id=incident.version_id,
            window_s=_BACK_S,
        )
    finally:
        labels.close()
    after, before = _with_inputs(after), None if before is None else _with_inputs(before)
    loss_after, _ = row_losses(after, task=settings.app.task, scale=scale)
    loss_before = np.zeros(0)
    if before is not None:
        loss_before, _ = row_losses(before, task=settings.app.task, scale=scale)
    return IncidentRows(
        after=after, before=before, loss_after=loss_after, loss_before=loss_before, scale=scale
    )


def _window(incident: Incident) -> Mapping[str, Any] | None:
    """Return start, end and generation of the rows that an incident rests on."""
    explained = (incident.facts.get("explanation") or {}).get("window")
    found = explained or incident.facts.get("window")
    if not isinstance(found, Mapping) or not {"start", "end"} <= set(found):
        return None
    return found


def _with_inputs(rows: WindowData) -> WindowData:
    """Return the rows whose inputs were kept, all of them where none were."""
    return rows.take(rows.inputs_kept) if rows.inputs_kept.any() else rows


def _of_subject(rows: WindowData, incident: Incident) -> WindowData:
    """Return the rows of one group where the incident is about one, like ``[sex=F]``."""
    _, _, subject = incident.monitor.removesuffix("]").partition("[")
    attribute, named, value = subject.partition("=")
    if not named:
        return rows
    mine = rows.attribute(attribute) == value
    return rows.take(mine) if mine.any() else rows


def hidden_columns(settings: AppSettings, rows: WindowData) -> frozenset[str]:
    """Return the columns that are not shown to people: redacted, sensitive, personal."""
    hidden = {*settings.log.redact, *settings.data.sensitive, settings.data.id}
    for name, values in rows.columns.items():
        # A card number is a whole number; a measurement is neither that nor text.
        if values.dtype == object or values.dtype.kind in "iu":
            texts = [str(one) for one in values.tolist() if one is not None]
            if find_personal_data(name, texts) is not None:
                hidden.add(name)
    return frozenset(hidden - {""})


def examples(
    settings: AppSettings, found: IncidentRows, moved: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return a few rows before and after, with what may be shown of them.

    Parameters
    ----------
    settings : AppSettings
        The app's.
    found : IncidentRows
        The rows.
    moved : sequence of str
        Columns to show first.

    Returns
    -------
    dict
        ``before``: the latest that were answered best; ``after``: the latest that were answered
        worst; ``query_id, row, output, label, loss`` each.
    """
    hidden = hidden_columns(settings, found.after)
    names = [*moved, *(one for one in found.after.columns if one not in moved)]
    shown = [one for one in names if one not in hidden and one in found.after.columns][:COLUMNS]
    told = {"before": [], "after": _examples(found.after, -found.loss_after, shown)}
    if found.before is not None:
        kept = [one for one in shown if one in found.before.columns]
        told["before"] = _examples(found.before, found.loss_before, kept)
    return told


def _examples(
    rows: WindowData, order: npt.NDArray[np.float64], shown: Sequence[str]
) -> list[dict[str, Any]]:
    places = np.arange(len(rows))
    # Stable and from the end: the latest of those that are equally telling.
    ranked = places[::-1][np.argsort(np.nan_to_num(order[::-1], nan=np.inf), kind="stable")]
    return [
        {
            "query_id": int(rows.query_id[place]),
            "row": {name: _plain(rows.columns[name][place]) for name in shown},
            "output": _plain(rows.output[place]),
            "label": _plain(rows.label[place]) if rows.labelled[place] else None,
            "loss": None if math.isnan(order[place]) else abs(float(order[place])),
        }
        for place in ranked[:EXAMPLES]
    ]


def _plain(value: Any) -> Any:
    found = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(found, float) and not math.isfinite(found) else found
