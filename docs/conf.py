"""Sphinx configuration: MyST pages, no external assets."""

project = "mlguard"
copyright = "the mlguard authors"  # noqa: A001  Sphinx's own name
version = release = "0.1.0"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Gates, a batching server, monitors that roll back."}
myst_heading_anchors = 3
nitpicky = True
