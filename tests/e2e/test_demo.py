"""The demo tells its story to the end, and leaves behind only what it names."""

import email
import email.policy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"


#: What every telling says, and the README shows.  How the alarm is worded between depends on
#: how many labels had come when the monitors looked.
SAID = (
    "4. The world changes: the bureau renames its grades",
    "Sent 1,400 rows and 1,400 labels to lending in 7.7 s",
    "5. Back to the version before, by itself, and people are told",
    "lending went back from v2 to v1: concept_drift.loss raised its alarm. mean loss 0.44",
    "acceptable up to 0.16",
    "v1: mean loss 0.18, n = 99, the current version's 0.43 on the same rows. v1 serves now",
)


def shown_in_readme():
    """Return the part of the demo's output that the README shows."""
    return README.read_text().partition("$ mlguard demo\n")[2].partition("```")[0]


def masked(text):
    """Return text with its numbers and its line breaks made alike."""
    return re.sub(r"\d[\d,.]*", "#", " ".join(text.split()))


def test_the_demo_tells_the_whole_story(tmp_path):
    """Refusal, drift, alarm, rollback and mail all happen, with their numbers."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mlguard.cli", "demo"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(scratch), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "unfair was refused" in done.stdout
    assert "false_negative_rate" in done.stdout
    assert "v2 is live" in done.stdout
    assert "concept_drift" in done.stdout
    assert "v1 serves now" in done.stdout
    for sentence in map(masked, SAID):
        assert sentence in masked(done.stdout)
        assert sentence in masked(shown_in_readme())
    assert list(scratch.iterdir()) == []
    kept = {path.name for path in (tmp_path / "mlguard-demo").iterdir()}
    assert {"report.html", "rollback.eml"} <= kept
    assert {path.name for path in tmp_path.iterdir()} == {"tmp", "mlguard-demo"}
    mail = email.message_from_bytes(
        (tmp_path / "mlguard-demo" / "rollback.eml").read_bytes(), policy=email.policy.default
    )
    assert "v2 → v1" in mail["subject"]
    text = mail.get_body(("plain",)).get_content()
    assert "lending was rolled back from v2 to v1" in text
    assert "concept_drift" in text
    report = (tmp_path / "mlguard-demo" / "report.html").read_text()
    assert len(report) < 500_000
    assert "rolled back" in report
