"""Who may ask for predictions, and who may read and change through ``/api``.

*Predicting and sending labels* is open, unless app.toml names keys: then every caller shows one
of them, and is known by its name from then on.  A key's value is in the environment variable
``MLGUARD_KEY_<NAME>``, or in the file that ``MLGUARD_KEY_<NAME>_FILE`` names; never in app.toml.

*Reading* is open to this machine: the caller's address is a loopback one, and the Host it asked
for is an address or ``localhost``.  A page on the web can make a browser on this machine call
us, but only under a name of its own; that is what Host tells.  Anybody else needs the token.

*Changing* needs the token, always; and where a browser says which page sent the request
(Origin), that page has to be ours.

The admin token is in the environment variable named in mlguard.toml, or else in
``.mlguard/admin-token``, which is made at the first start and readable by its owner only.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mlguard.config import ProjectSettings
from mlguard.errors import RefusedError

TOKEN_FILE = "admin-token"  # noqa: S105 - the file's name, not what is in it
#: Environment variables that hold the keys of callers.
KEY_PREFIX = "MLGUARD_KEY_"
_TOKEN_BYTES = 32


class ForbiddenError(RefusedError):
    """The caller may not do this at all, whatever the token."""

    http_status = 403
    code = "forbidden"


class UnauthorisedError(RefusedError):
    """The admin token or an app's key is missing or another one."""

    http_status = 401
    code = "unauthorised"


class AppKeys:
    """The keys of one app by name; a name without a value lets nobody in.

    Parameters
    ----------
    names : sequence of str
        ``[app] keys``; empty: anybody may ask.
    environment : mapping, optional
        Where the values are; default: the process's own.
    """

    def __init__(self, names: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        #: Whether a caller has to show one.
        self.needed = bool(names)
        found = {name: key_value(name, environment) for name in names}
        self._values = {name: value.encode() for name, value in found.items() if value}
        #: Names whose value was nowhere to be found.
        self.absent = tuple(name for name in names if name not in self._values)

    def shown(self, authorization: bytes) -> str | None:
        """Return the name of the key that an Authorization header shows; None without keys.

        Raises
        ------
        UnauthorisedError
            If a key is needed and the header shows none of them.
        """
        if not self.needed:
            return None
        given = _token(authorization)
        found = None
        # All of them, always: how long it takes says nothing about which one was nearly right.
        for name, value in self._values.items():
            if hmac.compare_digest(given, value):
                found = name
        if found is None or not given:
            raise UnauthorisedError(
                "this app answers to callers with a key",
                hint="send it as Authorization: Bearer …",
            )
        return found


def key_variable(name: str) -> str:
    """Return the environment variable that holds a key."""
    return KEY_PREFIX + name.upper().replace("-", "_")


def key_value(name: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the value of a key, empty where it has none."""
    known = os.environ if environment is None else environment
    variable = key_variable(name)
    value = known.get(variable, "").strip()
    file = known.get(f"{variable}_FILE", "").strip()
    if not value and file:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            value = Path(file).read_text(encoding="utf-8").strip()
    return value


def admin_token(project: ProjectSettings) -> str:
    """Return the admin token; make one where none is configured."""
    configured = os.environ.get(project.server.admin_token_env, "").strip()
    if configured:
        return configured
    file = project.state_dir / TOKEN_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and linked: whoever reads it reads all of it, and the first one wins.
    aside = file.with_name(f"{TOKEN_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    if not file.exists():
        try:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as stream:
                stream.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
            _link(aside, file)
        finally:
            aside.unlink(missing_ok=True)
    return file.read_text(encoding="ascii").strip()


def _link(aside: Path, file: Path) -> None:
    with contextlib.suppress(FileExistsError):  # another process was first; its token counts
        os.link(aside, file)


def may_read(headers: Mapping[str, str], peer: str | None, token: str) -> None:
    """Raise unless the caller may read."""
    if not (_is_loopback(peer) and _is_local_name(headers.get("host", ""))):
        _needs_token(headers, token)


def may_change(headers: Mapping[str, str], token: str) -> None:
    """Raise unless the caller may change something."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise ForbiddenError(f"a page of {origin} may not change this server")
    _needs_token(headers, token)


def _needs_token(headers: Mapping[str, str], token: str) -> None:
    if not hmac.compare_digest(_bearer(headers), token.encode()):
        raise UnauthorisedError(
            "this needs the admin token",
            hint=f"send it as Authorization: Bearer …; it is in .mlguard/{TOKEN_FILE} or in the "
            "environment variable that mlguard.toml names",
        )


def _bearer(headers: Mapping[str, str]) -> bytes:
    # A framework reads headers as Latin-1; compare_digest refuses text beyond ASCII.
    return _token(headers.get("authorization", "").encode("latin-1", "replace"))


def _token(authorization: bytes) -> bytes:
    scheme, _, given = authorization.partition(b" ")
    return given.strip() if scheme.lower() == b"bearer" else b""


def _is_loopback(peer: str | None) -> bool:
    try:
        return peer is not None and ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False


def _is_local_name(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
