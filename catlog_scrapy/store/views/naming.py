"""Names and comments of catlog's views."""

from catlog_scrapy.store.definitions import VERSIONS_SUFFIX

# Prefix of the comment that marks a view as catlog's. A hash of the view's source follows and, for
# a project view, the name of the project.
VIEW_COMMENT = "catlog "
HISTORY_SUFFIX = "_history"
# PostgreSQL cuts identifiers at 63 bytes, and the name of the table of versions has to fit.
MAX_KIND_BYTES = 63 - len(VERSIONS_SUFFIX)
AS_OF_SCHEMA = "as_of"
# End of the comment of an as-of view that only raises an error when it is read.
UNREADABLE_SUFFIX = "\nIt cannot be read as of a time."


def project_of(comment: str) -> str:
    """Return the project that a view's comment names, or "" for a view of a kind."""
    return comment.removeprefix(VIEW_COMMENT).partition(" ")[2]
