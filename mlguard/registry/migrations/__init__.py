"""Changes of the registry's schema, oldest first; run when a registry is opened."""
