"""What the learners of a platform tried."""

import datetime as dt
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator, model_validator

from catlog_scrapy.records.record import Record

# How many characters a user id has, where the spider has no `id_length`.
ID_LENGTH = 32


class LearningAttempt(Record, key="id", view="learning_attempts"):
    """A learner ran a program, or submitted it to be judged. `day` is the date it was asked by."""

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
    def _is_whole(cls, value: Any, info: ValidationInfo) -> Any:
        if not value:
            raise ValueError("it is missing")
        length = int(getattr(info.context, "id_length", ID_LENGTH))
        if isinstance(value, str) and len(value) != length:
            raise ValueError(f"it has {len(value)} characters, not {length}")
        return value

    @model_validator(mode="after")
    def _is_judged(self) -> "LearningAttempt":
        if self.attempt_type == "submit" and self.is_correct is None:
            raise ValueError("a submitted attempt is correct or not")
        return self
