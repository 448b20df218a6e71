"""Every event as a JSON document, posted to one address: for chat, pagers and scripts.

The document has the words of the mail and its facts.  The same event has the same ``id`` on
every attempt, so a receiver can tell a duplicate.  With a secret each request is signed::

    X-MLGuard-Signature: t=1795357320,v1=<hex of HMAC-SHA256(secret, "1795357320." + body)>

so that a receiver can tell who sent it and when.  What the other side answers decides:

==============================  ===========================================================
2xx                             it arrived
408, 425, 429, 5xx, no answer   tried again, as mail is
401, 403, 3xx, no secret        waits until the settings are mended
any other                       given up: the receiver will never take it
==============================  ===========================================================
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlguard.config import ProjectSettings
from mlguard.notify.delivery import Delivery, Outcome, SendError
from mlguard.notify.mail import facts_json
from mlguard.version import VERSION
from mlguard.wording import printable, rfc3339

if TYPE_CHECKING:
    import httpx

#: The recipient that this notifier reaches.
WEBHOOK = "webhook"
_LATER = frozenset({408, 425, 429})
_SETTINGS = frozenset({401, 403, 407})
_OK, _REDIRECT, _CLIENT, _SERVER = 200, 300, 400, 500


def signature(secret: str, body: bytes, now: float) -> str:
    """Return the header that proves who sent a body, and when.

    Parameters
    ----------
    secret : str
        What both sides know.
    body : bytes
        The request's body.
    now : float
        Time of sending (seconds, UTC).
    """
    stamp = str(int(now))
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256)
    return f"t={stamp},v1={digest.hexdigest()}"


def document(delivery: Delivery, now: float) -> dict[str, Any]:
    """Return the JSON document of one event."""
    said = delivery.notice
    return {
        "schema_version": "1.0",
        "id": delivery.message_id.strip("<>"),
        "kind": said.kind,
        "project": said.project,
        "environment": said.environment,
        "app": said.app,
        "incident": said.incident,
        "at": rfc3339(said.at if said.at is not None else delivery.created_at),
        "sent_at": rfc3339(now),
        "subject": said.subject,
        "happened": said.headline,
        "serves": said.serves,
        "why": said.why,
        "did": said.did,
        "next": said.next_step,
        "command": said.command,
        "facts": json.loads(facts_json(delivery.facts)),
    }


class Webhook:
    """The notifier ``webhook``.

    Parameters
    ----------
    settings : ProjectSettings
        ``[notify.webhook]`` names the address; absent, nothing is posted.
    environ : mapping, optional
        Where the secret is looked up. Default: the process's environment.
    """

    def __init__(
        self, settings: ProjectSettings, *, environ: Mapping[str, str] | None = None
    ) -> None:
        self._table = settings.notify.webhook
        self._environ = os.environ if environ is None else environ
        self._client: httpx.Client | None = None

    def handles(self, recipient: str) -> bool:
        """Whether ``recipient`` is the webhook of these settings."""
        return recipient == WEBHOOK and self._table is not None

    def send(self, delivery: Delivery, now: float) -> str:
        """Post one event; say what was answered.

        Raises
        ------
        SendError
            If it was not taken; the outcome says what that means.
        """
        import httpx

        table = self._table
        assert table is not None, "handles() was asked"
        body = json.dumps(document(delivery, now), allow_nan=False).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"mlguard/{VERSION}",
            "X-MLGuard-Id": delivery.message_id.strip("<>"),
        }
        if table.secret_env:
            secret = self._environ.get(table.secret_env, "")
            if not secret:
                raise SendError(
                    f"the environment variable {table.secret_env!r} holds no secret",
                    Outcome.STOP,
                    hint="set it where mlguard runs; [notify.webhook] secret_env names it",
                )
            headers["X-MLGuard-Signature"] = signature(secret, body, now)
        if self._client is None:
            self._client = httpx.Client(timeout=table.timeout_s, follow_redirects=False)
        place = urlsplit(table.url).hostname or "the webhook"
        try:
            code = self._client.post(table.url, content=body, headers=headers).status_code
        except httpx.InvalidURL as error:
            raise SendError(f"[notify.webhook] url: {error}", Outcome.STOP) from error
        except httpx.HTTPError as error:
            why = printable(error) or type(error).__name__
            reached = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise SendError(
                f"{place} could not be reached: {why}", Outcome.UNREACHABLE, uncertain=reached
            ) from error
        if _OK <= code < _REDIRECT:
            return f"{place} answered {code}"
        raise _refusal(place, code)

    def close(self) -> None:
        """Close the connection, if one was opened."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _refusal(place: str, code: int) -> SendError:
    said = f"{place} answered {code}"
    if code in _LATER or code >= _SERVER:
        return SendError(said, Outcome.AGAIN, uncertain=code >= _SERVER)
    if code in _SETTINGS:
        return SendError(said, Outcome.STOP, hint="mend url and secret_env in [notify.webhook]")
    if code < _CLIENT:
        return SendError(
            said, Outcome.STOP, hint="redirects are not followed: name the last address in url"
        )
    return SendError(said, Outcome.NEVER)
