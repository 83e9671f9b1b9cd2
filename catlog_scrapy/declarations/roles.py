"""Permissions of each role, written `resource:action`, with `*` for any resource or action."""

import re
from collections.abc import Collection, Iterable, Mapping

PERMISSION = re.compile(r"(\*|[a-z0-9][a-z0-9_-]*):(\*|[a-z]+)")

# Declared resources name the roles that may read them, in addition to these.
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
    """Return whether *permissions* include *wanted*, directly or by a wildcard."""
    resource, _, action = wanted.partition(":")
    return any(
        broader in permissions for broader in (wanted, f"{resource}:*", f"*:{action}", "*:*")
    )


def intersect(permissions: Iterable[str], scopes: Iterable[str]) -> frozenset[str]:
    """Return the permissions that both a role and a key's *scopes* grant."""
    scopes = list(scopes)
    both = (_intersect_pair(permission, scope) for permission in permissions for scope in scopes)
    return frozenset(permission for permission in both if permission)


def _intersect_pair(one: str, other: str) -> str | None:
    parts = []
    for mine, theirs in zip(one.split(":"), other.split(":"), strict=True):
        if mine != theirs and "*" not in (mine, theirs):
            return None
        parts.append(theirs if mine == "*" else mine)
    return ":".join(parts)
