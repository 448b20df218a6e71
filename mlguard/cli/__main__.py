"""Entry point of the ``mlguard`` command and of ``python -m mlguard.cli``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an exception that nobody caught ends with 3, never 1.

    Exit code 1 means that a gate said no, and the interpreter's own code for a crash is 1:
    so even an import error must not escape.
    """
    try:
        from mlguard.cli import (
            deploying,
            explaining,
            fairness,
            looking,
            moving,
            rehearsing,
            running,
            starting,
            steering,
            suggesting,
            waiving,
        )
        from mlguard.cli.app import app

        # Importing a module of commands adds them.
        for commands in (
            *(deploying, explaining, fairness, looking, moving, rehearsing),
            *(running, starting, steering, suggesting, waiving),
        ):
            assert commands.app is app
        app()
    except Exception as error:  # noqa: BLE001  the outermost boundary
        sys.stderr.write(f"mlguard: {type(error).__name__}: {error}\n")
        sys.stderr.write("  next: this is a bug or a broken installation; nothing was decided\n")
        sys.exit(3)


if __name__ == "__main__":
    main()
