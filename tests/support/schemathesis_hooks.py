"""Hooks of schemathesis, which imports this file itself."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")  # type: ignore[untyped-decorator]
def lines(_: Any, value: Any) -> bytes:
    """Serialize a body as NDJSON."""
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "surrogatepass")


@schemathesis.hook  # type: ignore[untyped-decorator]
def before_call(_: Any, case: Any, __: Any) -> None:
    """Shorten the wait of claims, which find no attempts."""
    if isinstance(case.body, dict):
        wait = case.body.get("wait")
        if type(wait) in (int, float) and 0 < wait <= 30:
            case.body["wait"] = 0.01
