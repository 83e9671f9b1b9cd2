"""What can go wrong, by who raises it. A message says what happened and what to do."""


class CatlogError(Exception):
    """The base of all. A command prints it as one line and exits with code 2."""


class ConfigurationError(CatlogError):
    """A setting or an environment variable is missing or unusable. Raised by the add-on."""


class EmbeddedServerError(CatlogError):
    """The embedded PostgreSQL could not be started or stopped. Raised by `embedded`."""


class DatabaseUnavailable(CatlogError):
    """No connection to PostgreSQL. Raised by `database` when the first query fails."""


class SchemaMismatch(CatlogError):
    """The database's schema is not this catlog's. Raised by `database` before any work."""


class DeclarationError(CatlogError):
    """A provider file is wrong, or contradicts what a used scheme version froze.

    Raised by `declarations`, with one line a mistake: file, place, remedy.
    """


class NotFound(CatlogError):
    """A name or id that the database does not know. Raised by `store`."""


class NotPossible(CatlogError):
    """A change that the present state does not allow. Raised by `store`."""


class AttemptLost(CatlogError):
    """The attempt is no longer this worker's: its lease expired, or its catalog stopped.

    Raised by `store` wherever a worker acts for an attempt; nothing was changed.
    """


class PublishRefused(CatlogError):
    """The rows of a catalog contradict its operation, so nothing of it may become current.

    Raised by `store.publishing`; the catalog fails with this text.
    """
