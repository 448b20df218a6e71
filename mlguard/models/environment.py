"""What a model was judged with: the interpreter, the machine, and every installed library.

It is kept with the evidence, so that a finding can be repeated, and a difference between two
runs can be traced to the library that changed.
"""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import distributions
from typing import Any

#: Libraries that decide what a model answers; a card names these and counts the others.
TELLING = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "onnxruntime", "mlguard")


def environment_lock() -> dict[str, Any]:
    """Return ``python``, ``platform``, ``libraries`` (version by name) and their ``sha256``.

    Names are normalised as package indexes write them; the digest covers everything else.
    """
    libraries = {
        str(one.metadata["Name"]).lower().replace("_", "-"): one.version
        for one in distributions()
        if one.metadata["Name"]
    }
    content = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": dict(sorted(libraries.items())),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}
