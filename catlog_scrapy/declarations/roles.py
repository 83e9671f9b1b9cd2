"""What each role may do: permissions, written `resource:action`, with `*` for any of either."""

import re
from collections.abc import Collection, Iterable, Mapping

PERMISSION = re.compile(r"(\*|[a-z0-9][a-z0-9_-]*):(\*|[a-z]+)")

# Resources that are declared say themselves who may read them.
DEFAULT_ROLES: Mapping[str, frozenset[str]] = {
    "admin": frozenset({"*:*"}),
    "internal": frozenset({"*:read", "catalogs:*", "catalog_scheme_operations:*", "schedules:*"}),
    "service": frozenset(
        {
            "attempts:execute",
            "catalogs:read",
            "catalogs:create",
            "catalog_scheme_operations:read",
            "catalog_scheme_operations:schedule",
            "media:read",
        }
    ),
    "user": frozenset({"media:read"}),
}


def covers(permissions: Collection[str], wanted: str) -> bool:
    """Whether one of *permissions* is *wanted*, or more than it."""
    resource, _, action = wanted.partition(":")
    return any(
        broader in permissions for broader in (wanted, f"{resource}:*", f"*:{action}", "*:*")
    )


def intersect(permissions: Iterable[str], scopes: Iterable[str]) -> frozenset[str]:
    """What both allow: of a key's *scopes*, those parts that its role (still) has."""
    scopes = list(scopes)
    both = (_meet(permission, scope) for permission in permissions for scope in scopes)
    return frozenset(permission for permission in both if permission)


def _meet(one: str, other: str) -> str | None:
    parts = []
    for mine, theirs in zip(one.split(":"), other.split(":"), strict=True):
        if mine != theirs and "*" not in (mine, theirs):
            return None
        parts.append(theirs if mine == "*" else mine)
    return ":".join(parts)
