"""Discovery of the readable resources in the database."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from sqlalchemy import Connection

from catlog_scrapy.api.resources.parameters import COLUMN_TYPES
from catlog_scrapy.api.resources.readable_resource import ReadableResource
from catlog_scrapy.declarations.resources import Resource, Resources
from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.reading.listings import LISTINGS
from catlog_scrapy.store.reading.page_query import AS_OF_PARAMETER, OrderTerm, PageSource
from catlog_scrapy.store.reading.pages import describe
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import row
from catlog_scrapy.store.views import lineage
from catlog_scrapy.store.views.typed import ID_COLUMN, as_of_parts, current_view

# Column names that need no escaping in quoted SQL names and in comma-separated parameters.
COLUMN_NAME = re.compile(r"\w([\w -]*\w)?")


def find_resources(
    connection: Connection, declared: Resources
) -> tuple[list[ReadableResource], dict[str, str]]:
    """Return the listings and the *declared* resources that fit their views.

    Also returns the mistake of each resource that does not: its view may have been dropped since,
    and the others are served. Raises DeclarationError if none of the resources fits.
    """
    found = []
    for listing in LISTINGS:
        columns = describe(connection, listing.sql)
        source = PageSource(listing.sql, columns, listing.order)
        found.append(
            ReadableResource(listing.path, listing.about, source, listing.key, tuple(columns))
        )
    mistakes: dict[str, str] = {}
    for resource in declared.resources:
        try:
            found.append(_declared_resource(connection, declared.file, resource))
        except DeclarationError as error:
            mistakes[resource.path] = str(error)
    if mistakes and len(mistakes) == len(declared.resources):
        raise DeclarationError("\n  ".join(mistakes.values()))
    return found, mistakes


def describe_view(connection: Connection, view: str) -> dict[str, str]:
    """Return the columns of a view in `public` with their SQL types; empty if it is missing."""
    found = row(connection, "SELECT to_regclass(:name) AS oid", name=f'public."{view}"')
    return describe(connection, f'public."{view}"') if found and found["oid"] else {}


def _declared_resource(connection: Connection, file: str, resource: Resource) -> ReadableResource:
    kind = all_kinds(connection).get(resource.view)
    view = describe_view(connection, resource.view)
    for mistake in _mistakes(resource, view, kind):
        raise DeclarationError(f"{file}: resources.{resource.path}: {mistake}")
    sources = lineage.view_sources(connection, resource.view)
    order = tuple(OrderTerm(name) for name in resource.key)
    source = PageSource(f'public."{resource.view}"', view, order, has_nulls=True)
    as_of_source = None
    if sources.has_as_of_view:
        as_of_source = replace(source, sql=f'as_of."{resource.view}"')
    if kind:
        # In the order of the primary key: the cost of a page does not grow with its depth.
        sql = current_view(kind, with_id=True)
        id_order = (OrderTerm(ID_COLUMN),)
        source = PageSource(sql, describe(connection, sql), id_order)
        if as_of_source:
            parts = as_of_parts(kind, AS_OF_PARAMETER, with_id=True)
            as_of_sql = "\nUNION ALL\n".join(parts)
            as_of_source = PageSource(as_of_sql, source.columns, id_order, parts=parts)
    return ReadableResource(
        resource.path,
        f"Rows of the view `{resource.view}`.",
        source,
        resource.key,
        resource.fields or tuple(view),
        as_of_source=as_of_source,
        search=resource.search,
        visibility=resource.visibility,
        model=resource.model,
        kinds=sources.cacheable_kinds,
        view=resource.view,
        kind=kind if kind and set(kind.key) <= set(resource.key) else None,
    )


def _mistakes(
    resource: Resource, view: Mapping[str, str], kind: KindDefinition | None
) -> Iterator[str]:
    """Yield the reasons why *resource* does not fit the columns of its *view*."""
    if not view:
        yield f'the view "{resource.view}" does not exist; run scrapy apply, or correct the name'
        return
    hidden = resource.visibility.hidden_columns
    for name in (*resource.key, *resource.fields, *resource.search, *hidden):
        if name not in view:
            yield f'the view "{resource.view}" has no column "{name}"'
    for name in (*(resource.fields or view), *resource.key, *resource.search):
        if not COLUMN_NAME.fullmatch(name):
            yield (
                f'the column name "{name}" is not made of letters, digits, _, - and blanks;'
                " rename it in the view with AS, or leave it out of `fields`"
            )
    for name in resource.key:
        if view[name] not in COLUMN_TYPES:
            yield f'key column "{name}" has the type {view[name]}, which no URL can hold'
    for name in resource.search:
        if view[name] not in ("text", "character varying"):
            yield f'"{name}" cannot be searched, because its type is not text'
    for name in kind.key if kind else ():
        if name in hidden:
            yield f'"{name}" cannot be hidden, because cursors contain the key of its records'
