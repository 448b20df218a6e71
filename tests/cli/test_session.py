"""How a command ends: its exit code, and the one document that says why."""

import contextlib
import json
import signal

import pytest
import typer

from mlguard.cli.session import session
from mlguard.errors import RefusedError


def ended(error, capsys, *, project=None, as_json=True):
    """Raise an error in a command; return the exit code and what was printed."""
    with (
        pytest.raises(typer.Exit) as found,
        session("deploy", project=project, json=as_json, quiet=False, no_color=True),
    ):
        raise error
    out, err = capsys.readouterr()
    return found.value.exit_code, json.loads(out) if as_json else out, err


def test_an_interruption_is_told_like_every_other_end(capsys):
    """Ctrl-C ends with 130, and a program gets its document all the same."""
    code, document, _ = ended(KeyboardInterrupt(), capsys)
    assert code == document["exit_code"] == 130
    assert document["error"]["code"] == "interrupted"
    code, out, err = ended(KeyboardInterrupt(), capsys, as_json=False)
    assert (code, out) == (130, "")
    assert "interrupted" in err


def test_being_asked_to_end_unwinds_like_an_interruption(capsys):
    """SIGTERM runs what closes children and leases, ends with 143, and is told as well."""
    closed = []

    @contextlib.contextmanager
    def closing():
        try:
            yield
        finally:
            closed.append(True)

    def work():
        with session("check", project=None, json=True, quiet=False, no_color=True), closing():
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(typer.Exit) as found:
        work()
    assert closed
    document = json.loads(capsys.readouterr().out)
    assert found.value.exit_code == document["exit_code"] == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_failure_says_what_serves(project, capsys):
    """A refusal moved no traffic, so its document names the version that goes on serving."""
    code, document, _ = ended(RefusedError("no", app="iris", incident=7), capsys, project=project)
    assert code == 1
    assert document["active"]["version"] == "v1"
    assert (document["generation"], document["incident"]) == (1, 7)


def test_a_failure_outside_a_project_is_told_too(tmp_path, capsys):
    """Where no registry can be asked, the error is what is left."""
    code, document, _ = ended(RefusedError("no", app="iris"), capsys, project=tmp_path)
    assert (code, document["active"], document["error"]["message"]) == (1, None, "no")


def test_a_bug_is_an_outage_and_no_verdict(capsys):
    """Whatever nobody expected ends with 3, and the document is whole."""
    code, document, _ = ended(ZeroDivisionError("oh"), capsys)
    assert code == document["exit_code"] == 3
    assert "ZeroDivisionError" in document["error"]["message"]
