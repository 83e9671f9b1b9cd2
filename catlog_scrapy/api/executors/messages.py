"""What executors and the server say to each other."""

import datetime as dt
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from catlog_scrapy.api.strict_model import StrictModel

EXAMPLE_ATTEMPT = "7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0.1"
EXAMPLE_RECORD = {"id": "17", "title": "A lamp"}

RetryAfter = Annotated[
    float,
    Field(
        ge=0,
        le=86400,
        allow_inf_nan=False,
        description="seconds that the source wants to be left alone before it is tried again",
    ),
]


class ClaimRequest(StrictModel):
    """Which operations, for whom, how many, and how long to wait for one."""

    operations: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=300)]],
        Field(min_length=1, max_length=100, description="`provider/scheme[/operation]`"),
    ] = Field(examples=[["acme/goods"]])
    worker: str = Field(
        pattern=r"^[A-Za-z0-9._:@-]{1,100}$",
        description="this program's name: it stands beside the caller's in `scrapy status`",
        examples=["shop-1"],
    )
    limit: int = Field(1, ge=1, le=100)
    wait: float = Field(0.0, ge=0, le=30, allow_inf_nan=False, description="seconds")


class KindField(BaseModel):
    """A field of a record that has a type."""

    name: str = Field(examples=["title"])
    type: str = Field(examples=["text"])


class ClaimedKind(BaseModel):
    """What a record is: the fields that identify it, and those that have a type."""

    name: str = Field(examples=["goods"])
    key: list[str] = Field(examples=[["id"]])
    fields: list[KindField]


class ClaimedAttempt(BaseModel):
    """One try at one instance, which is the caller's until `expires_at`, or the next heartbeat.

    `cursor` is where an incremental operation goes on from; null: from the beginning. `lease` is
    in seconds. At `deadline_at` it is over, whatever is still to do.
    """

    attempt: str = Field(examples=[EXAMPLE_ATTEMPT])
    catalog: UUID
    provider: str = Field(examples=["acme"])
    scheme: str = Field(examples=["goods"])
    operation: str = Field(examples=["goods"])
    part: str = Field(examples=[""])
    arguments: dict[str, str] = Field(examples=[{"year": "2026"}])
    base_url: str | None = Field(examples=["https://acme.example"])
    mode: Literal["snapshot", "incremental"]
    cursor: str | None
    kinds: list[ClaimedKind]
    lease: float = Field(examples=[60.0])
    expires_at: dt.datetime
    deadline_at: dt.datetime
    limits: dict[str, Any] = Field(examples=[{"min_results": 1, "tolerate": {"rejected": 0.01}}])


class ClaimReply(BaseModel):
    """What was claimed; empty where nothing came."""

    attempts: list[ClaimedAttempt]


class HeartbeatReply(BaseModel):
    """`go`, or why to stop: `cancel` (its catalog stopped), `timed_out` (past its deadline), `lost`
    (it has ended, or is another's).

    `expires_at` is null where there is no lease any more.
    """

    reply: Literal["go", "cancel", "timed_out", "lost"]
    expires_at: dt.datetime | None


class RejectedItem(BaseModel):
    """An item that does not fit its kind."""

    of: Literal["records", "unchanged", "removed"]
    index: int = Field(description="its place in that list, from 0", examples=[3])
    errors: list[str] = Field(examples=[["id: Field required"]])


class BatchReply(BaseModel):
    """What became of a batch. Of its rejections the first hundred are told."""

    batch: int = Field(examples=[1])
    accepted: int = Field(examples=[2])
    rejected: int = Field(examples=[0])
    rejections: list[RejectedItem]


class CompleteRequest(StrictModel):
    """How many batches were sent and, for an incremental operation, how far it has read."""

    batches: int = Field(ge=0, le=2**31 - 1, examples=[2])
    cursor: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    retry_after: RetryAfter = 0.0


class FailRequest(StrictModel):
    """Why it cannot be completed."""

    error: str = Field(min_length=1, max_length=10_000, examples=["the shop answers with 500"])
    retry_after: RetryAfter = 0.0


class ReleaseRequest(StrictModel):
    """Why it is given back."""

    error: str = Field("its executor stopped", min_length=1, max_length=10_000)


class AttemptOutcome(BaseModel):
    """How the attempt ended, and why where it is not `done`."""

    outcome: Literal["done", "failed", "incomplete", "timed_out", "cancelled", "released"]
    error: str | None


# The body of a batch, which the endpoint reads itself.
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
                        "description": "what was read; a record as its operation declares it",
                    },
                    "unchanged": {
                        "type": "array",
                        "items": {},
                        "description": "keys that were seen and not read again: they are kept;"
                        " a key of several fields is a list of their values",
                    },
                    "removed": {
                        "type": "array",
                        "items": {},
                        "description": "keys that are gone, as the source says",
                    },
                },
            },
            "example": {"records": [EXAMPLE_RECORD], "unchanged": ["18"], "removed": ["19"]},
        },
        "application/x-ndjson": {
            "schema": {"type": "string", "description": "a record a line"},
            "example": '{"id": "17", "title": "A lamp"}\n{"id": "20", "title": "A chair"}\n',
        },
    },
}
