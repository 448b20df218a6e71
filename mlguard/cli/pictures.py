"""Pictures of pages, taken by the Chromium that is on this machine, where there is one.

Nothing of mlguard needs a browser; samples and reviews do.  A page is loaded in a process and a
profile of its own, which end with it.
"""

from __future__ import annotations

import base64
import email
import email.policy
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from mlguard.errors import MlguardError, UsageError

#: Names under which systems install it, in the order of preference.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Longest that a page may take, in seconds.
TIME_LIMIT_S = 120.0
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class PictureError(MlguardError):
    """The browser took no picture."""

    code = "picture"


def browser() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def picture_of(url: str, png: Path, *, width: int, height: int) -> Path:
    """Take a picture of a page.

    Parameters
    ----------
    url : str
        ``http://…`` or ``file://…``.
    png : Path
        Where it goes.
    width, height : int
        Of the window, in CSS pixels.

    Raises
    ------
    PictureError
        If there is no browser, or it took none in time.
    """
    program = browser()
    if program is None:
        raise PictureError("there is no Chromium", hint="install it: apt-get install chromium")
    # As root, e.g. in a container, Chromium cannot make its sandbox.
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory(prefix="mlguard-browser-") as profile:
        flags = (f"--user-data-dir={profile}", f"--window-size={width},{height}")
        command = [program, *_FLAGS, *sandbox, *flags, f"--screenshot={png.resolve()}", url]
        try:
            done = subprocess.run(  # noqa: S603  our own command line
                command, capture_output=True, timeout=TIME_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise PictureError(f"{program} took longer than {TIME_LIMIT_S:.0f} s") from error
    if not png.is_file():
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise PictureError(f"{program} took no picture: {' '.join(said)}")
    return png


def mail_page(mail: Path) -> str:
    """Return the HTML of a mail as a page that stands alone: its pictures are inside.

    Raises
    ------
    UsageError
        If the file is no mail with an HTML part.
    """
    message = email.message_from_bytes(mail.read_bytes(), policy=email.policy.default)
    body = message.get_body(("html",))
    if body is None:
        raise UsageError(f"{mail} has no HTML part", hint="name a mail that mlguard wrote")
    page = str(body.get_content())
    for part in message.walk():
        cid = str(part.get("Content-ID", "")).strip("<>")
        if cid:
            data = base64.b64encode(part.get_content()).decode()
            page = page.replace(f"cid:{cid}", f"data:{part.get_content_type()};base64,{data}")
    return page
