"""The samples in reports/ are what the product makes today: compared by structure, not by bytes."""

import email
import email.policy
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mlguard.cli import pictures

SAMPLES = Path(__file__).parents[2] / "reports" / "samples"
#: Pictures, and the width of the window that each was taken of.
PICTURES = {"mail.png": 640, "dashboard.png": 1440}


def headings(folder):
    """Sections of the report, and the columns of its tables."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    sections = re.findall(r'<section id="([\w-]+)">', page)
    return sections, sorted(set(re.findall(r'<th scope="col"[^>]*>([^<]+)<', page)))


def mail(folder):
    return email.message_from_bytes((folder / "mail.eml").read_bytes(), policy=email.policy.default)


def parts(folder):
    return [part.get_content_type() for part in mail(folder).walk()]


def width(png):
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">I", data[16:20])[0]


def complete(folder):
    """Assert what any reader of the samples may expect."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 500_000
    assert "lending was rolled back from v2 to v1." in page
    assert page.count("<svg") >= 5
    message = mail(folder)
    assert message["subject"].startswith("[ROLLED BACK v2 → v1] mlguard dev lending: concept_drift")
    assert "multipart/alternative" in parts(folder)
    assert "image/png" in parts(folder)
    assert "v1" in message.get_body(("plain",)).get_content()


def test_the_samples_that_are_kept_are_complete_and_small():
    """One report, one mail with its picture, one dashboard; less than a megabyte in all."""
    assert {one.name for one in SAMPLES.iterdir()} == {
        "README.md",
        "report.html",
        "mail.eml",
        *PICTURES,
    }
    assert sum(one.stat().st_size for one in SAMPLES.iterdir()) < 1_000_000
    complete(SAMPLES)
    assert {name: width(SAMPLES / name) for name in PICTURES} == PICTURES


@pytest.mark.soak
@pytest.mark.marathon
def test_the_command_makes_them_again(tmp_path):
    """Made afresh they have the same sections, columns, parts and sizes."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mlguard.cli", "samples", "--to", str(tmp_path)],
        cwd=SAMPLES.parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    complete(tmp_path)
    assert headings(tmp_path) == headings(SAMPLES)
    assert parts(tmp_path) == parts(SAMPLES)
    if pictures.browser() is not None:
        assert {name: width(tmp_path / name) for name in PICTURES} == PICTURES
