"""Sphinx configuration: MyST pages, no external assets."""

from mlguard.version import VERSION

project = "mlguard"
copyright = "the mlguard authors"  # noqa: A001  Sphinx's own name
version = release = VERSION
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nitpicky = True

# The colours, the font and the hairlines of mlguard's own pages, light and dark.
_FONTS = {
    "font-stack": '-apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial, '
    "sans-serif",
    "font-stack--monospace": "ui-monospace, monospace",
}
html_theme = "furo"
html_title = "mlguard"
html_static_path = ["_static"]
html_css_files = ["mlguard.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": _FONTS
    | {
        "color-foreground-primary": "#1b1f24",
        "color-background-primary": "#ffffff",
        "color-brand-primary": "#0b63ce",
        "color-brand-content": "#0b63ce",
        "color-brand-visited": "#0b63ce",
    },
    "dark_css_variables": {
        "color-foreground-primary": "#e6e8eb",
        "color-background-primary": "#14171a",
        "color-brand-primary": "#6cb0ff",
        "color-brand-content": "#6cb0ff",
        "color-brand-visited": "#6cb0ff",
    },
}
