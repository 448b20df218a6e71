"""Which version a model file is already: the same bytes, of which app.toml says the same.

Such a file is not loaded again to be described: what was found when it was registered holds, for
its digest covers all of it.
"""

from __future__ import annotations

from pathlib import Path

from mlguard.config import AppSettings
from mlguard.data.frames import file_digest
from mlguard.models.bundle import Manifest
from mlguard.registry import Registry, State


def known_manifest(registry: Registry, settings: AppSettings, model: Path) -> Manifest | None:
    """Return the manifest of the version that a file is already; None where it is none.

    Parameters
    ----------
    registry : Registry
        The versions.
    settings : AppSettings
        What app.toml says today.
    model : Path
        The file.
    """
    if not model.is_file():
        return None
    sha256 = file_digest(str(model))
    for version in registry.versions(settings.name):
        if version.state in (State.REGISTERED, State.BROKEN):
            continue
        manifest = Manifest.from_json(version.manifest)
        if (
            manifest.model_sha256 == sha256
            and _declared_alike(manifest, settings)
            and _compiled_alike(manifest, settings)
        ):
            return manifest
    return None


def _declared_alike(manifest: Manifest, settings: AppSettings) -> bool:
    """Return whether app.toml still says of a model what it said when this was registered."""
    features = settings.data.features
    schema = manifest.schema
    return (
        manifest.thresholds == settings.model.thresholds
        and manifest.task == settings.app.task
        and manifest.allow_pickle == settings.model.allow_pickle
        and manifest.allow_code == settings.model.allow_code
        and list(manifest.trusted_types) == settings.model.trusted_types
        and schema.input == settings.app.input
        and features in ([], list(schema.names))
        and _calibrated_alike(manifest, settings)
    )


def _calibrated_alike(manifest: Manifest, settings: AppSettings) -> bool:
    """Return whether answers would say how sure they are from the same rows, as often right."""
    if not settings.app.uncertainty:
        return not manifest.uncertainty
    rows = file_digest(settings.path(settings.data.calibration or settings.data.test))
    known = manifest.uncertainty
    same = known.get("coverage") == settings.app.coverage and known.get("rows_sha256") == rows
    return bool(same)


def _compiled_alike(manifest: Manifest, settings: AppSettings) -> bool:
    """Return whether compiling would be asked for, and judged, as when this was registered."""
    told = settings.model
    if told.runtime == "original":
        # Versions from before anything was compiled are this.
        return manifest.runtime == "original"
    known = manifest.compilation
    return (
        known.get("asked") == told.runtime
        and known.get("tolerance") == told.compile_tolerance
        and known.get("data_sha256") == file_digest(settings.path(settings.data.test))
    )
