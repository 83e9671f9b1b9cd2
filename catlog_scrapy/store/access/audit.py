"""Who changed what, when, from where."""

from collections.abc import Mapping
from typing import Any

import orjson

from catlog_scrapy.store.sql import Database, clean, run

COMMAND_LINE = "command line"
# Letters that are kept of what was changed.
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
    """Leave a row that says so; *detail* is JSON, of which nothing is secret."""
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
    """The same with all text as it may be stored, and whole numbers as JSON has them everywhere."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(name)): _storable(of) for name, of in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_storable(each) for each in value]
    if isinstance(value, int) and abs(value) >= 2**63:
        return str(value)
    return value
