"""Alembic environment for the connection in the attributes, in catlog's own schema."""

from alembic import context
from sqlalchemy import text

from catlog_scrapy.db.engine import SCHEMA

connection = context.config.attributes["connection"]
connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
context.configure(
    connection=connection,
    version_table_schema=SCHEMA,
    include_schemas=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
