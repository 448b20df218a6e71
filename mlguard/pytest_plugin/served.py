"""The candidate behind the real HTTP server, for tests that ask it as callers will."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlguard.checks.evidence import Subject

if TYPE_CHECKING:
    import httpx

#: Longest that one answer may take in a test, in seconds, and the deadline that allows for it.
_TIMEOUT_S = 60.0
PATIENT_MS = 60_000.0


@contextmanager
def serve_candidate(subject: Subject, *, slo_ms: float = PATIENT_MS) -> Iterator[httpx.Client]:
    """Serve the candidate of a subject on a free port of this machine.

    Parameters
    ----------
    subject : Subject
        Names the model file and the app, under whose route it answers.
    slo_ms : float, optional
        Deadline of every answer, in milliseconds, instead of the app's own: what is tested is what
        is answered, and a machine that is busy must turn no answer into the default output.

    Yields
    ------
    httpx.Client
        With the server as its base URL: ``client.post("/iris/predict", json=…)``.  Where the
        app has keys, the client shows one that was made for the test.
    """
    import httpx

    from mlguard.serving.access import key_variable
    from mlguard.serving.embedded import served

    settings, manifest = subject.settings, subject.manifest.to_json()
    patient = settings.app.model_copy(update={"slo_ms": slo_ms})
    settings = settings.model_copy(update={"app": patient})
    key = secrets.token_urlsafe()
    keys = {key_variable(name): key for name in settings.app.keys}
    headers = {"Authorization": f"Bearer {key}"} if keys else {}
    with (
        served(
            settings, manifest, subject.model_path, version=subject.name, environment=keys
        ) as url,
        # Only this machine is asked, whatever proxy the environment names.
        httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False, headers=headers) as client,
    ):
        yield client
