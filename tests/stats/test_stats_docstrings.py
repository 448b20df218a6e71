"""The examples of the statistics' docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import mlguard.stats

MODULES = sorted(one.name for one in pkgutil.iter_modules(mlguard.stats.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    """Every example of a module prints what it says."""
    result = doctest.testmod(importlib.import_module(f"mlguard.stats.{name}"))
    assert result.failed == 0
