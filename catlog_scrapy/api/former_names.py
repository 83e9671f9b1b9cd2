"""Former names of columns, for errors that name the current names."""

# By resource: former name -> current name.
FORMER_COLUMNS = {"catalogs": {"whole": "is_full"}}


def former_name_error(resource: str, name: str) -> str | None:
    """Return the error for a former column name, also as a filter such as `whole__null`.

    >>> former_name_error("catalogs", "whole__null")
    'whole is now is_full'
    """
    column = name.partition("__")[0]
    current = FORMER_COLUMNS.get(resource, {}).get(column)
    return f"{column} is now {current}" if current else None
