"""Errors at the start of a spider that another attempt would meet again."""

from json import JSONDecodeError

from catlog_scrapy.exceptions import ConfigurationError, NotFound

# What code raises about values that it was given: arguments, names, dates.
VALUE_ERRORS = (ValueError, TypeError, LookupError)
# What it may also raise about a response: libraries for HTTP derive their errors from OSError.
PASSING_ERRORS = (OSError, JSONDecodeError)


def is_permanent(error: BaseException) -> bool:
    """Return whether an error in the making of a spider, or at its start, is there to stay.

    >>> is_permanent(ValueError("Invalid isoformat string: '2026-13-01'"))
    True
    >>> is_permanent(ConnectionResetError())
    False
    """
    if isinstance(error, PASSING_ERRORS):
        return False
    return isinstance(error, (ConfigurationError, NotFound, *VALUE_ERRORS))
