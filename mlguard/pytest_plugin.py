"""The pytest plug-in: app.toml checks as items, fixtures, recorded results."""
