"""What alembic runs: the migrations, on the connection and inside the transaction it is given."""

from alembic import context

from mlguard.registry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
