"""Persons, schools, classes, pupils and marks of a school platform."""

import datetime as dt
from decimal import Decimal

from catlog_scrapy.records.record import Record


class Person(Record, key="id", view="persons"):
    """Pupil, teacher or other person."""

    id: int
    last_name: str
    first_name: str
    birth_date: dt.date
    email: str | None
    phone: str


class Organisation(Record, key="id", view="organisations"):
    """School or other teaching organisation."""

    id: int
    name: str
    city: str
    timezone: str
    places: int


class SchoolClass(Record, key="id", view="classes"):
    """Class of a school. Its teacher is a person."""

    id: int
    organisation_id: int
    name: str
    year: int
    teacher_id: int


class Pupil(Record, key="id", view="pupils"):
    """Person in a class, since a day."""

    id: int
    person_id: int
    class_id: int
    since: dt.date


class Mark(Record, key="id", view="marks"):
    """Mark of a pupil in a subject."""

    id: int
    pupil_id: int
    subject: str
    value: Decimal
    given_at: dt.datetime
    comment: str | None


class PupilAverage(Record, key="id", view="pupil_averages"):
    """Mean of a pupil's marks in a subject, computed by the platform."""

    id: str
    pupil_id: int
    subject: str
    marks: int
    mean: Decimal
