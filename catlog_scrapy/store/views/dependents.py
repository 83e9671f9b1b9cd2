"""Dependents of a view: dropped with the view, and the grants that new views get back."""

from collections.abc import Container, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, exc

from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.sql import execute, load_sql, rows, run
from catlog_scrapy.store.views.naming import AS_OF_SCHEMA, VIEW_COMMENT


@dataclass(frozen=True)
class Grant:
    """A privilege on a view, or on its as-of view, of a role that is not the owner."""

    schema: str
    privilege: str
    grantable: bool
    grantee: str


def drop_with_dependents(
    connection: Connection, name: str, keep: Container[str] = ()
) -> dict[str, list[Grant]]:
    """Drop a view, catlog's views that read it, and their as-of views.

    Returns the grants on each dropped view. Raises DeclarationError if a dependent is not catlog's
    or is one of *keep*.
    """
    dependents = rows(
        connection,
        load_sql(__name__, "dependents"),
        name=name,
        comment=VIEW_COMMENT + "%",
        as_of=AS_OF_SCHEMA,
    )
    for dependent in dependents:
        if not dependent["is_own"]:
            raise _dependency_error(name, f"{dependent['title']} reads it")
        if dependent["name"] in keep:
            raise DeclarationError(
                f'the view "{name}" is to be dropped, but views/{dependent["name"]}.sql reads it;'
                " correct its SELECT."
            )
    grants = {view["name"]: _grants(connection, view["name"]) for view in dependents}
    try:
        if dependents:
            listed = ", ".join(f'{view["schema"]}."{view["name"]}"' for view in dependents)
            run(connection, f"DROP VIEW {listed}")
    except exc.InternalError as error:
        # The dependent is a function, a policy or a column of the view's row type.
        diagnosis = getattr(error.orig, "diag", None)
        detail = str(getattr(diagnosis, "message_detail", None) or error.orig).splitlines()[0]
        raise _dependency_error(name, detail) from error
    return grants


def _dependency_error(name: str, why: str) -> DeclarationError:
    return DeclarationError(
        f'the view "{name}" has to be replaced, but {why};'
        " drop what reads it, apply again, and create it again."
    )


def _grants(connection: Connection, name: str) -> list[Grant]:
    found = rows(
        connection,
        """SELECT n.nspname AS schema, acl.privilege_type AS privilege,
               acl.is_grantable AS grantable,
               CASE WHEN acl.grantee = 0 THEN 'PUBLIC'
                   ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
               aclexplode(c.relacl) AS acl
           WHERE n.nspname IN ('public', :as_of) AND c.relname = :name
             AND acl.grantee <> c.relowner""",
        name=name,
        as_of=AS_OF_SCHEMA,
    )
    return [Grant(**grant) for grant in found]


def restore_grants(connection: Connection, name: str, grants: Iterable[Grant]) -> None:
    """Grant the privileges that roles had on the view before it was dropped."""
    for grant in grants:
        option = " WITH GRANT OPTION" if grant.grantable else ""
        execute(
            connection,
            f'GRANT {grant.privilege} ON {grant.schema}."{name}" TO {grant.grantee}{option}',
        )
