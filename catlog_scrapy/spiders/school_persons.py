"""Persons of the schools of a platform."""

from catlog_scrapy.base_spiders.change_feed import ChangeFeed
from catlog_scrapy.items.school import Person


class SchoolPersons(ChangeFeed):
    """Pupils, teachers and others. Some have no e-mail address, some names run right to left."""

    name = "school_persons"
    record = Person
    path = "persons"
    fields = {
        "id": "id",
        "last_name": "lastName",
        "first_name": "firstName",
        "birth_date": "birthDate",
        "email": "email",
        "phone": "phone",
    }
