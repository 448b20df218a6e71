"""One file per revision; :data:`mlguard.registry.tables.REVISIONS` names them in order."""
