"""Base model of request bodies."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Request body that rejects unknown fields and values of another JSON type."""

    model_config = ConfigDict(extra="forbid", strict=True)
