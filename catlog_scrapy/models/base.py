"""Declarative base and column types of all tables."""

import datetime as dt
import uuid
from typing import Annotated, Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Double,
    Identity,
    Integer,
    MetaData,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from catlog_scrapy.db.engine import SCHEMA

UuidKey = Annotated[
    uuid.UUID, mapped_column(Uuid, primary_key=True, server_default=func.gen_random_uuid())
]


# UUID version 7: begins with the time, so that rows of one time lie together.
TimeOrderedKey = Annotated[
    uuid.UUID, mapped_column(Uuid, primary_key=True, server_default=text("catlog.uuid7()"))
]


Instant = Annotated[dt.datetime, mapped_column(DateTime(timezone=True))]


CreatedAt = Annotated[
    dt.datetime, mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
]


Json = Annotated[Any, mapped_column(JSONB(none_as_null=True))]


Seconds = Annotated[float, mapped_column(Double)]


Big = Annotated[int, mapped_column(BigInteger)]


# Short name of a row, for tables with many references to it.
Number = Annotated[int, mapped_column(Integer, Identity(), unique=True)]
BigNumber = Annotated[int, mapped_column(BigInteger, Identity(), unique=True)]


# Collation C compares bytes: fast, and equal only if identical, whatever the database's collation.
Key = Annotated[str, mapped_column(Text(collation="C"))]


class Base(DeclarativeBase):
    """Base of all tables, in the schema `catlog`; `public` has only the views of readers."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        },
    )
    type_annotation_map = {str: Text, dt.datetime: DateTime(timezone=True)}
