"""Who learns where, and with what success."""

import datetime as dt
from decimal import Decimal

from catlog_scrapy.records.record import Record


class Person(Record, key="id", view="persons"):
    """A pupil, a teacher, or somebody else whom the schools know."""

    id: int
    last_name: str
    first_name: str
    birth_date: dt.date
    email: str | None
    phone: str


class Organisation(Record, key="id", view="organisations"):
    """A school, or who else teaches."""

    id: int
    name: str
    city: str
    timezone: str
    places: int


class SchoolClass(Record, key="id", view="classes"):
    """A class of a school; its teacher is a person."""

    id: int
    organisation_id: int
    name: str
    year: int
    teacher_id: int


class Pupil(Record, key="id", view="pupils"):
    """A person in a class, since a day."""

    id: int
    person_id: int
    class_id: int
    since: dt.date


class Mark(Record, key="id", view="marks"):
    """What a pupil was given, and when."""

    id: int
    pupil_id: int
    subject: str
    value: Decimal
    given_at: dt.datetime
    comment: str | None


class PupilAverage(Record, key="id", view="pupil_averages"):
    """The mean of a pupil's marks in a subject, calculated by the platform."""

    id: str
    pupil_id: int
    subject: str
    marks: int
    mean: Decimal
