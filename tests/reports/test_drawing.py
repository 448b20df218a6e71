"""The child process that draws: it ends, it is told nothing secret, and it fails politely."""

import subprocess
import sys
import time

import pytest

from mlguard.reports import drawing
from mlguard.reports.drawing import DrawingError, draw_pictures, write_report


def test_a_report_is_written_in_every_format(sample, tmp_path):
    """HTML with its charts, Markdown and JSON, each where it was asked for."""
    paths = {
        "html": tmp_path / "deep" / "report.html",
        "markdown": tmp_path / "report.md",
        "json": tmp_path / "report.json",
    }
    assert write_report(sample, **paths) == list(paths.values())
    text = paths["html"].read_text(encoding="utf-8")
    assert text.count("<svg") == 6
    assert len(text.encode()) < 500_000
    assert sorted(one.name for one in tmp_path.iterdir()) == ["deep", "report.json", "report.md"]


def test_pictures_come_back_with_their_words(sample):
    """PNG bytes with the finding and the words that stand for it."""
    [picture] = draw_pictures([sample.performance[0]])
    assert picture.png.startswith(b"\x89PNG")
    assert (picture.title, picture.alt) == ("Error rose to 0.31", "Error over time, highest 0.31")


def test_nothing_to_draw_starts_no_process(monkeypatch):
    """A mail without pictures costs no interpreter."""
    monkeypatch.setattr(drawing, "_child", pytest.fail)
    assert draw_pictures([]) == []


def test_a_chart_that_cannot_be_drawn_is_an_error_with_its_reason():
    """The last line of what went wrong is told, not a traceback."""
    with pytest.raises(DrawingError, match="no chart"):
        draw_pictures([{"chart": "pie"}])


def test_a_process_that_hangs_is_ended(monkeypatch, sample):
    """Drawing may never hold up what it draws for."""
    monkeypatch.setattr(drawing, "TIME_LIMIT_S", 0.05)
    started = time.monotonic()
    with pytest.raises(DrawingError, match="was ended"):
        draw_pictures([sample.performance[0]])
    assert time.monotonic() - started < 10


def test_the_child_gets_no_secrets(monkeypatch):
    """What is named like a secret stays with the parent."""
    seen = {}

    class Process:
        def __init__(self, arguments, **options):
            seen.update(options["env"])
            raise OSError("not started")

    monkeypatch.setenv("MLGUARD_ADMIN_TOKEN", "t")
    monkeypatch.setenv("SMTP_PASSWORD", "p")
    monkeypatch.setattr(drawing.subprocess, "Popen", Process)
    with pytest.raises(OSError, match="not started"):
        draw_pictures([{"chart": "time"}])
    assert not {"MLGUARD_ADMIN_TOKEN", "SMTP_PASSWORD"} & set(seen)
    assert seen["DO_NOT_TRACK"] == "1"


def test_building_and_asking_load_nothing_that_draws():
    """The watcher that asks for a report never holds matplotlib, jinja2 or Evidently."""
    code = (
        "import sys, mlguard.reports.build, mlguard.reports.drawing, mlguard.reports.pictures,"
        " mlguard.reports.schedule;"
        "sys.exit(bool({'matplotlib', 'jinja2', 'evidently', 'sklearn', 'PIL'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
