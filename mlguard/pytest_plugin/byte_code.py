"""Under the gate, no byte code is left beside a project's own files.

Libraries may keep theirs where they are installed: without it, every gate would compile this
package anew, for pytest rewrites the assertions of each plug-in's modules.  That takes seconds.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Iterator

import pytest

from mlguard.pytest_plugin.items import AppFile


@contextlib.contextmanager
def none_written() -> Iterator[None]:
    """Import without leaving byte code behind."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


class TidyCollection:
    """The plug-in object that watches over test files and conftests while they are imported."""

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Collect whatever is the project's code without byte code; app.toml is no code."""
        if isinstance(collector, AppFile):
            return (yield)
        with none_written():
            return (yield)
