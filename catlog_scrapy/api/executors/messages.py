"""Messages between external executors and the server."""

import datetime as dt
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from catlog_scrapy.api.strict_model import StrictModel

EXAMPLE_ATTEMPT = "7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0.1"
EXAMPLE_RECORD = {"id": "17", "title": "A lamp"}
MAX_RETRY_AFTER_S = 86400
MAX_BATCHES = 2**31 - 1

ListName = Literal["records", "unchanged", "removed"]
RetryAfter = Annotated[
    float,
    Field(
        ge=0,
        le=MAX_RETRY_AFTER_S,
        allow_inf_nan=False,
        description="Seconds that the source asks clients to wait before the next attempt.",
    ),
]


class ClaimRequest(StrictModel):
    """Request for attempts."""

    operations: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=300)]],
        Field(
            min_length=1,
            max_length=100,
            description="Operations to claim, as `provider/scheme` or `provider/scheme/operation`.",
        ),
    ] = Field(examples=[["acme/goods"]])
    worker: str = Field(
        pattern=r"^[A-Za-z0-9._:@-]{1,100}$",
        description="Name of this executor, for `scrapy status`.",
        examples=["shop-1"],
    )
    tags: Annotated[
        list[Annotated[str, Field(pattern=r"^[\w-]{1,100}$")]], Field(max_length=100)
    ] = Field(
        [],
        description="Tags of this executor. Only operations whose tags are all listed are claimed.",
        examples=[["gpu"]],
    )
    limit: int = Field(1, ge=1, le=100, description="Largest number of attempts to claim.")
    wait: float = Field(
        0.0, ge=0, le=30, allow_inf_nan=False, description="Seconds to wait for work."
    )


class KindField(BaseModel):
    """Typed field of a record."""

    name: str = Field(description="Name of the field.", examples=["title"])
    type: str = Field(description="SQL type of the field.", examples=["text"])


class ClaimedKind(BaseModel):
    """Kind of record that the operation loads."""

    name: str = Field(description="Name of the kind.", examples=["goods"])
    key: list[str] = Field(description="Fields that identify a record.", examples=[["id"]])
    fields: list[KindField] = Field(description="Fields that have a declared type.")


class ClaimedAttempt(BaseModel):
    """Attempt that the caller may execute while it renews the lease."""

    attempt: str = Field(
        description="Name of the attempt, for the paths of the other requests.",
        examples=[EXAMPLE_ATTEMPT],
    )
    catalog: UUID = Field(description="Id of the catalog.")
    provider: str = Field(description="Name of the provider.", examples=["acme"])
    scheme: str = Field(description="Name of the scheme.", examples=["goods"])
    operation: str = Field(description="Name of the operation.", examples=["goods"])
    part: str = Field(
        description="Part of the operation, if it runs for each of several parts.", examples=[""]
    )
    arguments: dict[str, str] = Field(
        description="Arguments of the load, by name.", examples=[{"year": "2026"}]
    )
    base_url: str | None = Field(
        description="Base URL of the provider.", examples=["https://acme.example"]
    )
    mode: Literal["snapshot", "incremental"] = Field(
        description="Whether to load everything, or what changed since `cursor`."
    )
    cursor: str | None = Field(
        description="Position to continue an incremental load from; null: from the beginning."
    )
    kinds: list[ClaimedKind] = Field(description="Kinds of records that the operation loads.")
    lease: float = Field(description="Length of the lease in seconds.", examples=[60.0])
    expires_at: dt.datetime = Field(
        description="End of the lease, unless a heartbeat renews the lease."
    )
    deadline_at: dt.datetime = Field(
        description="End of the attempt; heartbeats do not extend the deadline."
    )
    limits: dict[str, Any] = Field(
        description="Limits and tolerances of the operation.",
        examples=[{"min_results": 1, "tolerate": {"rejected": 0.01}}],
    )


class ClaimReply(BaseModel):
    """Claimed attempts; empty without work."""

    attempts: list[ClaimedAttempt] = Field(description="Claimed attempts of one provider.")


class HeartbeatReply(BaseModel):
    """Reply to a heartbeat."""

    reply: Literal["go", "cancel", "timed_out", "lost"] = Field(
        description="`go`: continue. `cancel`: the catalog was cancelled or has failed."
        " `timed_out`: the deadline has passed. `lost`: the attempt has ended, or the lease expired"
        " and another executor has the instance."
    )
    expires_at: dt.datetime | None = Field(
        description="End of the renewed lease; null if the reply is not `go`."
    )


class RejectedItem(BaseModel):
    """Item that does not fit its kind."""

    of: ListName = Field(description="List of the batch that contains the item.")
    index: int = Field(description="Index of the item in its list, from 0.", examples=[3])
    errors: list[str] = Field(
        description="Reasons for the rejection.", examples=[["id: Field required"]]
    )


class BatchReply(BaseModel):
    """Result of storing a batch."""

    batch: int = Field(description="Number of the batch.", examples=[1])
    accepted: int = Field(description="Number of stored items.", examples=[2])
    rejected: int = Field(description="Number of rejected items.", examples=[0])
    rejections: list[RejectedItem] = Field(description="The first 100 rejected items.")


class CompleteRequest(StrictModel):
    """Completion of an attempt."""

    batches: int = Field(
        ge=0, le=MAX_BATCHES, description="Number of batches that were sent.", examples=[2]
    )
    cursor: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        None, description="Position up to which an incremental load has read its source."
    )
    retry_after: RetryAfter = 0.0


class FailRequest(StrictModel):
    """Failure of an attempt."""

    error: str = Field(
        min_length=1,
        max_length=10_000,
        description="Reason for the failure.",
        examples=["the shop answers with status 500"],
    )
    retry_after: RetryAfter = 0.0


class ReleaseRequest(StrictModel):
    """Release of an attempt."""

    error: str = Field(
        "its executor stopped",
        min_length=1,
        max_length=10_000,
        description="Reason for the release.",
    )


class AttemptOutcome(BaseModel):
    """Outcome of an attempt."""

    outcome: Literal["done", "failed", "incomplete", "timed_out", "cancelled", "released"] = Field(
        description="Outcome; only the results of a `done` attempt are published."
    )
    error: str | None = Field(description="Reason if the outcome is not `done`.")


# Body of a batch; the route reads and parses the body itself.
BATCH_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "records": {
                        "type": "array",
                        "items": {"type": "object"},
                        "description": "Records with the fields that the operation declares.",
                    },
                    "unchanged": {
                        "type": "array",
                        "items": {},
                        "description": "Keys of records that the source still has and that were not"
                        " read again. A key of several fields is a list of their values.",
                    },
                    "removed": {
                        "type": "array",
                        "items": {},
                        "description": "Keys of records that the source has deleted.",
                    },
                },
            },
            "example": {"records": [EXAMPLE_RECORD], "unchanged": ["18"], "removed": ["19"]},
        },
        "application/x-ndjson": {
            "schema": {"type": "string", "description": "One record per line."},
            "example": '{"id": "17", "title": "A lamp"}\n{"id": "20", "title": "A chair"}\n',
        },
    },
}
