"""An incident's rows as a table: for a check, and to be replayed by ``mlguard backtest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlguard.config import AppSettings
from mlguard.data.joint import class_name
from mlguard.deploy.incident_rows import IncidentRows
from mlguard.errors import RefusedError, UndecidedError, UsageError
from mlguard.models.bundle import Manifest
from mlguard.models.schema import InputSchema
from mlguard.models.thresholds import GroupThresholds
from mlguard.monitors.window import WindowData
from mlguard.wording import count, listed

if TYPE_CHECKING:
    import pandas as pd

    from mlguard.registry import Incident, Registry, Version


def check_frame(
    settings: AppSettings, version: Version, rows: WindowData, attributes: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Return rows as a frame: what the model sees, groups that are asked about, the label.

    Parameters
    ----------
    settings : AppSettings
        The app's.
    version : Version
        Whose inputs.
    rows : WindowData
        The rows.
    attributes : tuple of str
        Groups to put beside the inputs.

    Raises
    ------
    UsageError
        If an input was not logged, or is redacted now.
    """
    import pandas as pd

    schema = InputSchema.from_json(version.manifest["input_schema"])
    kept = {
        name: values for name, values in rows.columns.items() if name not in settings.log.redact
    }
    absent = [name for name in schema.names if name not in kept]
    if absent:
        raise UsageError(
            f"{listed(absent)}, which the model sees, {'is' if len(absent) == 1 else 'are'} not "
            "in the prediction log",
            hint="[log] redact and [log] inputs of app.toml say what is kept",
            app=settings.name,
        )
    table = GroupThresholds.of(version.manifest.get("thresholds") or {})
    named = [*attributes, *([table.attribute] if table is not None else [])]
    columns: dict[str, Any] = {name: kept[name] for name in schema.names}
    for name in named:
        if name in settings.log.redact:
            raise UsageError(
                f"{name}, which the check asks about, is redacted",
                hint="a check that compares groups needs to know them: [log] redact",
                app=settings.name,
            )
        if name not in columns:
            columns[name] = rows.attribute(name)
    if rows.labelled.any():
        classes = {class_name(one): one for one in schema.classes or ()}
        columns[settings.data.target] = [
            classes.get(class_name(one), one) if known else None
            for one, known in zip(rows.label.tolist(), rows.labelled.tolist(), strict=True)
        ]
    return pd.DataFrame(columns)


def export_rows(
    settings: AppSettings, registry: Registry, incident: Incident, found: IncidentRows, file: Path
) -> tuple[str, str]:
    """Write the labelled rows before and after as a table, and say how to replay them.

    Returns
    -------
    line, command : str
        What was written, and the command that replays it.

    Raises
    ------
    RefusedError
        If the file is there already.
    UndecidedError
        If no row has a label.
    """
    import pandas as pd

    from mlguard.data.frames import write_frame

    if file.exists():
        raise RefusedError(f"{file} is there already", hint="name another file")
    assert incident.version_id is not None
    version = registry.version_by_id(incident.version_id)
    sides = [one for one in (found.before, found.after) if one is not None]
    parts = []
    for one in sides:
        rows = one.take(one.labelled)
        frame = check_frame(settings, version, rows)
        for name in dict.fromkeys([*settings.data.sensitive, *settings.monitor.fairness.by]):
            if name not in frame.columns and name not in settings.log.redact:
                frame[name] = rows.attribute(name)
        if settings.data.time:
            frame[settings.data.time] = pd.to_datetime(rows.time, unit="s", utc=True)
        parts.append(frame)
    whole = pd.concat(parts, ignore_index=True)
    if settings.data.target not in whole.columns or not len(whole):
        raise UndecidedError(
            f"no row of incident {incident.id} has a label yet",
            hint="try again when labels have come",
            app=incident.app,
            incident=incident.id,
        )
    write_frame(whole, str(file))
    n_before = len(whole) - len(parts[-1])
    model = registry.artifacts.get(Manifest.from_json(version.manifest).model_sha256)
    line = (
        f"Wrote {count(len(whole))} labelled rows into {file}: {count(n_before)} before, "
        f"{count(len(whole) - n_before)} of the incident."
    )
    command = f"mlguard backtest {incident.app} {file} --model {model}"
    return line, command + (f" --change {n_before}" if n_before else "")
