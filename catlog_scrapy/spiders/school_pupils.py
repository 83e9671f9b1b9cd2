"""Pupils of the classes of a platform."""

from catlog_scrapy.base_spiders.change_feed import ChangeFeed
from catlog_scrapy.items.school import Pupil


class SchoolPupils(ChangeFeed):
    """Pupils. A pupil is a person in a class, and may move to another class."""

    name = "school_pupils"
    record = Pupil
    path = "pupils"
    fields = {
        "id": "id",
        "person_id": "person",
        "class_id": "class",
        "since": "since",
    }
