"""E-mail by SMTP, or as ``.eml`` files where no mail server is configured.

Rules: one recipient per message, so that a refused address cannot hide behind another one that
was accepted; TLS with a checked certificate unless ``insecure = true``; the password is read
from the environment for each connection and appears in no message, log or error; every
operation has a timeout.  What the server answers decides what happens to the row:

=============================  ============================================================
421, any 4xx, no connection    tried again; where nothing can be reached, all rows wait
5xx for a recipient or a text  that row is dead at once
530, 534, 535, 538, no login   the queue stops until the settings are mended
=============================  ============================================================

A message counts as delivered when the server has answered 250 to its text, whatever happens to
the connection afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import smtplib
import ssl
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from urllib.parse import urlsplit

from mlguard.config import EmailTable, ProjectSettings
from mlguard.errors import UsageError
from mlguard.notify.delivery import Delivery, Outcome, SendError
from mlguard.notify.mail import check_address, compose
from mlguard.wording import printable

#: Recipient that means: a file in the outbox folder.
FILE = "file"
#: After a refused login the server is left alone for this long.
LOGIN_PAUSE_S = 60.0
#: Answers that say the login, not the message, is at fault.
_LOGIN_CODES = frozenset({530, 534, 535, 538})
_FIRST_TEMPORARY, _FIRST_PERMANENT = 400, 500
_PORTS = {"smtp": 25, "smtps": 465}


class Email:
    """The notifier ``email``.

    Parameters
    ----------
    settings : ProjectSettings
        ``[notify.email]`` names the server; absent, messages become files under
        ``.mlguard/outbox/``.
    environ : mapping, optional
        Where the password is looked up. Default: the process's environment.
    """

    def __init__(
        self, settings: ProjectSettings, *, environ: Mapping[str, str] | None = None
    ) -> None:
        self._table = settings.notify.email
        self._folder = settings.state_dir / "outbox"
        self._environ = os.environ if environ is None else environ
        self._connection: smtplib.SMTP | None = None
        self._refused: tuple[float, SendError] | None = None

    def handles(self, recipient: str) -> bool:
        """Whether ``recipient`` is an address or the folder."""
        return recipient == FILE or ("@" in recipient and ":" not in recipient)

    def send(self, delivery: Delivery, now: float) -> str:
        """Send one message to one recipient, or write it into the folder; say where it is.

        Raises
        ------
        SendError
            If the server did not take it; the outcome says what that means.
        """
        if self._refused is not None and now < self._refused[0]:
            raise self._refused[1]
        table = self._table
        to_file = table is None or delivery.recipient == FILE
        sender = table.sender if table is not None else "mlguard@localhost"
        recipient = delivery.recipient if delivery.recipient != FILE else sender
        try:
            check_address(sender)
        except UsageError as error:
            # Every message would fail alike: that is the settings' fault, not the message's.
            why = f"[notify.email] from = {printable(sender, 80)!r} is no e-mail address"
            raise SendError(why, Outcome.STOP, hint=error.hint) from error
        try:
            message = compose(
                delivery.notice, delivery.facts, sender=sender, recipient=recipient,
                message_id=delivery.message_id, now=now, pictures=delivery.pictures,
            )  # fmt: skip
        except UsageError as error:
            raise SendError(error.message, Outcome.NEVER, hint=error.hint) from error
        if table is None or to_file:
            return f"written to {self._write(message, delivery)}"
        try:
            self._transmit(message, table, check_address(recipient))
        except SendError as error:
            # A wrong password tried every second gets an account locked.
            self._refused = (now + LOGIN_PAUSE_S, error) if error.outcome is Outcome.STOP else None
            raise
        url = urlsplit(table.smtp)
        return f"taken by the mail server {url.hostname}:{url.port or _PORTS[url.scheme]}"

    def close(self) -> None:
        """Say goodbye to the server, if one was spoken to."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                connection.quit()
            connection.close()

    # --- a folder ------------------------------------------------------------------------

    def _write(self, message: EmailMessage, delivery: Delivery) -> Path:
        """Write the message whole or not at all; a second attempt replaces the first."""
        file = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(message.as_bytes(policy=SMTP.clone(linesep="\n")))
                file.flush()
                os.fsync(file.fileno())
            return Path(file.name).replace(self._folder / _file_name(delivery))
        except OSError as error:
            if file is not None:
                Path(file.name).unlink(missing_ok=True)
            raise SendError(
                f"the mail could not be written to {self._folder}: {error}", Outcome.UNREACHABLE
            ) from error

    # --- a server ------------------------------------------------------------------------

    def _transmit(self, message: EmailMessage, table: EmailTable, recipient: str) -> None:
        try:
            connection = self._connected(table)
            connection.send_message(message, check_address(table.sender), [recipient])
        except (OSError, smtplib.SMTPException) as error:
            connected = self._connection is not None
            self._drop()
            raise _send_error(error, connected=connected) from error

    def _drop(self) -> None:
        """Close without another word: the dialogue is in an unknown state."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self, table: EmailTable) -> smtplib.SMTP:
        if self._connection is not None:
            return self._connection
        url = urlsplit(table.smtp)
        if url.scheme not in ("smtp", "smtps") or not url.hostname:
            raise SendError(
                f"[notify.email] smtp = {_without_password(table.smtp)!r} is no address of a "
                "mail server",
                Outcome.STOP,
                hint='write smtp = "smtp://host:25" or "smtps://host:465"',
            )
        context = ssl.create_default_context()
        if table.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection: smtplib.SMTP
        if url.scheme == "smtps":
            connection = smtplib.SMTP_SSL(
                url.hostname,
                url.port or _PORTS[url.scheme],
                timeout=table.timeout_s,
                context=context,
            )
        else:
            connection = smtplib.SMTP(
                url.hostname, url.port or _PORTS[url.scheme], timeout=table.timeout_s
            )
        try:
            if url.scheme == "smtp":
                self._encrypt(connection, table, context)
            self._login(connection, table)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _encrypt(
        self, connection: smtplib.SMTP, table: EmailTable, context: ssl.SSLContext
    ) -> None:
        connection.ehlo()
        if connection.has_extn("starttls"):
            connection.starttls(context=context)
            connection.ehlo()
        elif not table.insecure:
            raise SendError(
                "the mail server offers no STARTTLS, and [notify.email] insecure is false",
                Outcome.UNREACHABLE,
                hint="switch STARTTLS on at the server, use smtps://, or set insecure = true",
            )

    def _login(self, connection: smtplib.SMTP, table: EmailTable) -> None:
        if not table.username:
            return
        password = self._environ.get(table.password_env, "")
        if not password:
            raise SendError(
                f"the environment variable {table.password_env!r} holds no SMTP password",
                Outcome.STOP,
                hint="set it where mlguard runs; [notify.email] password_env names it",
            )
        connection.login(table.username, password)


def _send_error(error: Exception, *, connected: bool) -> SendError:
    """Say what an answer of the server, or its silence, means for the row."""
    if isinstance(error, SendError):
        return error
    code, words = _answer(error)
    if isinstance(error, smtplib.SMTPNotSupportedError) or code in _LOGIN_CODES:
        return SendError(
            f"the mail server refused the login: {words}",
            Outcome.STOP,
            hint="mend username and password_env in [notify.email]; what waits is sent then",
        )
    if isinstance(error, smtplib.SMTPAuthenticationError):
        # A 4xx here is a server that cannot check passwords just now.
        return SendError(f"the mail server could not log in: {words}", Outcome.UNREACHABLE)
    if code >= _FIRST_PERMANENT and isinstance(
        error, smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError | smtplib.SMTPSenderRefused
    ):
        return SendError(f"the mail server refused the message: {words}", Outcome.NEVER)
    if code >= _FIRST_TEMPORARY and connected and code != 421:  # service closing
        return SendError(f"the mail server asks to try later: {words}", Outcome.AGAIN)
    hint = ""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "give the server a certificate that this machine trusts (SSL_CERT_FILE adds one)"
    return SendError(
        f"the mail server could not be used: {words}",
        Outcome.UNREACHABLE,
        hint=hint,
        # Silence after the dialogue has begun: the text may have been taken.
        uncertain=connected and not code,
    )


def _answer(error: Exception) -> tuple[int, str]:
    """Return the code and the words of an error; code 0 where there was no answer."""
    code: int
    words: bytes | str
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, words = next(iter(error.recipients.values()))
    elif isinstance(error, smtplib.SMTPResponseException):
        code, words = error.smtp_code, error.smtp_error
    else:
        return 0, printable(error) or type(error).__name__
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    return int(code), f"{code} {printable(text)}"


def _without_password(url: str) -> str:
    return re.sub(r"(://[^\s:/@]+:)[^\s@/]+@", r"\1***@", url)


def _file_name(delivery: Delivery) -> str:
    """Name a file by when, what and for whom: the same for every attempt."""
    stamp = datetime.fromtimestamp(delivery.created_at, UTC).strftime("%Y%m%dT%H%M%SZ")
    key = f"{delivery.message_id}\0{delivery.recipient}".encode()
    parts = [stamp, delivery.notice.app, delivery.notice.kind, hashlib.sha256(key).hexdigest()[:8]]
    name = "-".join(part for part in parts if part)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name) + ".eml"
