"""Schools of a platform."""

from catlog_scrapy.base_spiders.change_feed import ChangeFeed
from catlog_scrapy.items.school import Organisation


class SchoolOrganisations(ChangeFeed):
    """Schools. Each has a time zone: Europe/Moscow or Europe/Belgrade."""

    name = "school_organisations"
    record = Organisation
    path = "organisations"
    fields = {
        "id": "id",
        "name": "name",
        "city": "city",
        "timezone": "timezone",
        "places": "places",
    }
