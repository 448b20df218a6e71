"""Entry points: how checks, monitors and notifiers are found, built-in ones included.

A plug-in is a class named by an entry point of one of the groups below; the entry point's
name is its id.  Loading is lazy.  Two distributions that claim one id are an error that names
both, and a plug-in that does not import is an error that names its distribution: a check that
silently disappears would open a gate.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from mlguard.errors import PluginError

Group = Literal["mlguard.checks", "mlguard.monitors", "mlguard.notifiers"]


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"


@cache
def found(group: Group) -> dict[str, EntryPoint]:
    """Return the entry points of a group by id, in order of id.

    Raises
    ------
    PluginError
        If two distributions claim one id.
    """
    by_id: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = by_id.get(point.name)
        if other is not None and (other.value, _origin(other)) != (point.value, _origin(point)):
            raise PluginError(
                f"{group} {point.name!r} is claimed by {_origin(other)} and by {_origin(point)}",
                hint="uninstall one of them, or ask its author to rename it",
            )
        by_id[point.name] = point
    return dict(sorted(by_id.items()))


def load(group: Group, name: str) -> Any:
    """Return the object that the entry point ``name`` of ``group`` stands for.

    Raises
    ------
    PluginError
        If nobody registered the id, or if it does not import.
    """
    points = found(group)
    if name not in points:
        raise PluginError(
            f"nobody registered {name!r} under {group}; known: {', '.join(points) or 'none'}"
        )
    try:
        return points[name].load()
    except Exception as error:
        raise PluginError(
            f"{group} {name!r} of {_origin(points[name])} could not be loaded: {error}",
            hint="reinstall or uninstall that distribution",
        ) from error
