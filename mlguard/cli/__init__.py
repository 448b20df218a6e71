"""The ``mlguard`` command: thin fronts of :class:`mlguard.Project`.

``app.py`` declares the commands' common options, ``session.py`` runs one command (exit codes,
JSON, errors), ``terminal.py`` says how findings look on a screen.  Everything heavy is
imported inside the command that needs it, so that ``--help`` answers at once.
"""
