"""The version of mlguard, where every room may read it; pyproject.toml says the same."""

VERSION = "0.1.0"
