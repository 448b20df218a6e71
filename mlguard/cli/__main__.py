"""Entry point of the ``mlguard`` command and of ``python -m mlguard.cli``."""

from __future__ import annotations

import json
import sys
from typing import Any


def _run(app: Any) -> None:
    """Run the command that was typed; one that cannot be read is a document too, with --json."""
    if "--json" not in sys.argv:
        app()
        return
    try:
        code = app(standalone_mode=False)
    except _errors_of_typing() as error:
        from mlguard.deploy.outcome import Outcome
        from mlguard.errors import UsageError

        said = UsageError(error.format_message(), hint=f"{_typed(error)} --help")
        outcome = Outcome(
            command=_typed(error).removeprefix("mlguard").strip() or "mlguard",
            app="",
            exit_code=said.exit_code,
            error=said.to_json(),
        )
        sys.stdout.write(json.dumps(outcome.to_json(), allow_nan=False) + "\n")
        sys.exit(said.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _errors_of_typing() -> type[Any]:
    """Return the class of what typer raises for a line that it cannot read."""
    from typer import BadParameter

    # Its base is not exported, and lives in a module whose name has changed before.
    return next(one for one in BadParameter.__mro__ if one.__name__ == "ClickException")


def _typed(error: Any) -> str:
    """Return the command that a typing error is about, e.g. ``mlguard deploy``."""
    context = getattr(error, "ctx", None)
    name = "" if context is None else str(context.info_name)
    # The line as a whole goes by the program's own name, whatever it was called by.
    known = context is not None and context.parent is not None
    return f"mlguard {name}" if known else "mlguard"


def command_line() -> Any:
    """Return the command line with every command added."""
    from mlguard.cli import (
        deploying,
        explaining,
        fairness,
        incidents,
        logging_rows,
        looking,
        mail,
        moving,
        rehearsing,
        running,
        samples,
        starting,
        steering,
        suggesting,
        upkeep,
        waiving,
    )
    from mlguard.cli.app import app

    # Importing a module of commands adds them.
    for commands in (
        *(deploying, explaining, fairness, incidents, logging_rows, looking, mail, moving),
        *(rehearsing, running, samples, starting, steering, suggesting, upkeep, waiving),
    ):
        assert commands.app is app
    return app


def main() -> None:
    """Run the command line; an exception that nobody caught ends with 3, never 1.

    Exit code 1 means that a gate said no, and the interpreter's own code for a crash is 1:
    so even an import error must not escape.
    """
    try:
        _run(command_line())
    except Exception as error:  # noqa: BLE001  the outermost boundary
        sys.stderr.write(f"mlguard: {type(error).__name__}: {error}\n")
        sys.stderr.write("  next: this is a bug or a broken installation; nothing was decided\n")
        sys.exit(3)


if __name__ == "__main__":
    main()
