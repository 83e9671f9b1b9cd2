"""Attempts of a learning platform's learners."""

import datetime as dt
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator, model_validator

from catlog_scrapy.records.record import Record

# Length of a user id, for a spider without `id_length`.
USER_ID_LENGTH = 32


class LearningAttempt(Record, key="id", view="learning_attempts"):
    """Run or submission of a learner's program. `day` is the date of the request to the source."""

    id: int
    day: dt.date
    user_id: str
    course: str
    task: str
    attempt_type: Literal["run", "submit"]
    is_correct: bool | None
    made_at: dt.datetime

    @field_validator("user_id", mode="before")
    @classmethod
    def _check_user_id(cls, value: Any, info: ValidationInfo) -> Any:
        if not value:
            raise ValueError("the user id is missing")
        length = int(getattr(info.context, "id_length", USER_ID_LENGTH))
        if isinstance(value, str) and len(value) != length:
            raise ValueError(f"the user id has {len(value)} characters, not {length}")
        return value

    @model_validator(mode="after")
    def _check_result(self) -> "LearningAttempt":
        if self.attempt_type == "submit" and self.is_correct is None:
            raise ValueError("a submitted attempt needs is_correct")
        return self
