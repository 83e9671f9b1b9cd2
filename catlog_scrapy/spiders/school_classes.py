"""Classes of the schools of a platform."""

from catlog_scrapy.base_spiders.change_feed import ChangeFeed
from catlog_scrapy.items.school import SchoolClass


class SchoolClasses(ChangeFeed):
    """Classes. A class belongs to an organisation. Its teacher is a person."""

    name = "school_classes"
    record = SchoolClass
    path = "classes"
    fields = {
        "id": "id",
        "organisation_id": "organisation",
        "name": "name",
        "year": "year",
        "teacher_id": "teacher",
    }
