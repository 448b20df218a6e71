"""Reports: what a window of live traffic looked like, as HTML, Markdown, JSON and mail.

``build`` reads the registry and the logs into a :class:`~mlguard.reports.view.ReportView`,
which is plain data; a child process (``render_child``) turns that into files, so that
matplotlib, jinja2 and Evidently never enter a server or a watcher.
"""

from __future__ import annotations
