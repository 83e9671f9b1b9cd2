"""Audit log: actor, action, target, time and address of each change."""

from collections.abc import Mapping
from typing import Any

import orjson

from catlog_scrapy.store.sql import Database, clean, run

COMMAND_LINE = "command line"
MAX_TARGET_CHARS = 1000


def record_audit(
    database: Database,
    *,
    actor: str,
    action: str,
    target: str,
    role: str = "",
    address: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Insert a row into the audit log; *detail* is stored as JSON and must hold no secret."""
    with database.begin() as connection:
        run(
            connection,
            """INSERT INTO catlog.audit (actor, role, action, target, address, detail)
               VALUES (:actor, :role, :action, :target, :address, CAST(:detail AS jsonb))""",
            actor=clean(actor),
            role=role,
            action=action,
            target=clean(target)[:MAX_TARGET_CHARS],
            address=clean(address),
            detail=orjson.dumps(_storable(detail or {}), default=str).decode(),
        )


def _storable(value: Any) -> Any:
    """Return *value* with cleaned text, and with integers of more than 64 bits as text."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(name)): _storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_storable(item) for item in value]
    if isinstance(value, int) and abs(value) >= 2**63:
        return str(value)
    return value
