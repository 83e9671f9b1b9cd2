"""Alembic's environment: the connection is handed in, the schema is catlog's own."""

from alembic import context
from sqlalchemy import text

from catlog_scrapy import models
from catlog_scrapy.database import SCHEMA, Base

connection = context.config.attributes["connection"]
connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    transactional_ddl=True,
)
assert models.__all__
with context.begin_transaction():
    context.run_migrations()
