"""Models: files, schemas, versions' manifests, one way to call them, and their isolation."""
