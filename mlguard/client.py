"""Ask a running server: ``Client("http://localhost:1337").predict("iris", [4.3, 2.0, 1.0, 0.1])``.

Answers come back as the server's JSON.  What the server refuses is raised as the error that
the same mistake would be in Python; each carries the server's own words.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from mlguard.errors import (
    ConflictError,
    MlguardError,
    NotFoundError,
    PendingError,
    RefusedError,
    UsageError,
)

if TYPE_CHECKING:
    import httpx

_ERRORS: dict[int, type[MlguardError]] = {
    401: RefusedError,
    403: RefusedError,
    404: NotFoundError,
    409: ConflictError,
    503: PendingError,
}


class Client:
    """A connection to one server; also a context manager, and safe to share between threads.

    Parameters
    ----------
    url : str
        Where it answers, e.g. ``"http://localhost:1337"``.
    admin_token : str, optional
        Needed for changes.
    timeout : float, default 10
        Longest wait for an answer, in seconds.
    key : str, optional
        Shown with predictions and labels, where the app has keys.
    """

    def __init__(
        self,
        url: str,
        admin_token: str | None = None,
        timeout: float = 10.0,
        *,
        key: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = admin_token
        self._key = key
        self._timeout = timeout
        self._http: httpx.Client | None = None
        self._opening = threading.Lock()

    def predict(self, app: str, row: Any, **options: Any) -> dict[str, Any]:
        """Return the answer for one row.

        Parameters
        ----------
        app : str
            Which app.
        row : Any
            As the app's input type says: numbers, a string, or ``{feature: value}``.
        **options
            ``version``, ``uid``, ``groups``.

        Returns
        -------
        dict
            ``query_id``, ``output``, ``default``; ``default_explanation`` where default.

        Raises
        ------
        UsageError
            If the row cannot be read; the message names the field.
        NotFoundError
            If there is no such app.
        PendingError
            If the server is overloaded; try again.
        MlguardError
            If no server answers.
        """
        body = {"input": _plain(row), **options}
        answer = self._ask("POST", f"/{quote(app)}/predict", body, token=self._key)
        return dict(answer)

    def predict_batch(self, app: str, rows: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        """Return the answers for some rows, in order; see :meth:`predict`."""
        body = {"input_batch": [_plain(row) for row in rows], **options}
        answer = self._ask("POST", f"/{quote(app)}/predict", body, token=self._key)
        return list(answer["batch_predictions"]) if "batch_predictions" in answer else [answer]

    def update(self, app: str, query_id: int, label: Any) -> None:
        """Send a prediction's label; it is durable when this returns.

        Raises
        ------
        NotFoundError
            If the id was never given out.
        ConflictError
            If another label was there first.
        """
        body = {"query_id": query_id, "label": _plain(label)}
        self._ask("POST", f"/{quote(app)}/update", body, token=self._key)

    def health(self) -> dict[str, Any]:
        """Return what ``/readyz`` says; its ``ready`` is False where the server is not."""
        return dict(self._ask("GET", "/readyz", allowed=(503,)))

    def apps(self) -> list[dict[str, Any]]:
        """Return every app and what serves it."""
        return list(self._ask("GET", "/api/apps")["apps"])

    def change(self, app: str, command: str, **arguments: Any) -> dict[str, Any]:
        """Have the server change something; needs the admin token.

        Parameters
        ----------
        app : str
            Which app.
        command : str
            ``rollback``, ``block``, ``unblock``, ``hold`` or ``resume``.
        **arguments
            ``reason``; for rollback also ``to``.
        """
        return dict(self._ask("POST", f"/api/apps/{quote(app)}/{quote(command)}", arguments))

    def close(self) -> None:
        """Close the connection."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> httpx.Client:
        import httpx

        with self._opening:
            if self._http is None:
                host = urlsplit(self.url).hostname or ""
                self._http = httpx.Client(
                    base_url=self.url,
                    headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
                    timeout=self._timeout,
                    # No proxy leads to this machine itself.
                    trust_env=host not in ("localhost", "127.0.0.1", "::1"),
                )
            return self._http

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        allowed: tuple[int, ...] = (),
        token: str | None = None,
    ) -> Any:
        import httpx

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            reply = self._opened().request(method, path, json=body, headers=headers)
        except httpx.TimeoutException as error:
            raise MlguardError(f"{self.url} did not answer within {self._timeout:g} s") from error
        except httpx.HTTPError as error:
            raise MlguardError(
                f"no server answers at {self.url}: {error}", hint="start one: mlguard up"
            ) from error
        try:
            document = reply.json()
        except ValueError as error:
            raise MlguardError(f"{self.url}{path} answered {reply.status_code}, no JSON") from error
        if reply.is_success or reply.status_code in allowed:
            return document
        said = document if isinstance(document, dict) else {}
        cause = said.get("cause", "")
        kind = RefusedError if said.get("error") == "Refused" else _ERRORS.get(reply.status_code)
        if kind is None:
            kind = UsageError if reply.is_client_error else MlguardError
        raise kind(cause or f"the server answered {reply.status_code}", status=reply.status_code)


def _plain(value: Any) -> Any:
    """Return numpy's and pandas' values as Python's own."""
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    # NaN is how frames write a missing value, and JSON has none.
    return None if isinstance(value, float) and value != value else value
