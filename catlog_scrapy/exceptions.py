"""Errors that a user can correct, with the modules that raise them.

A message says what happened and what to do. Data defects raise no CatlogError: the store counts
and keeps them. Bugs raise the built-in exceptions.
"""


class CatlogError(Exception):
    """Base class of catlog's errors.

    A command prints the message as one line and exits with code 2; the fleet's web service sends
    the message with its status "error".
    """


class ConfigurationError(CatlogError):
    """Missing or unusable setting, environment variable or program.

    Raised by `config` for a CATLOG_ setting, by `redaction` for a secret, by `db` for a database
    URL, and by the module that uses the setting: media pipelines, browser, worker, API server.
    """


class EmbeddedServerError(CatlogError):
    """Embedded PostgreSQL that cannot be installed, started or stopped; raised by `db.embedded`."""


class DatabaseUnavailable(CatlogError):
    """Failure of a connection to PostgreSQL; raised by `db.opening`, and by `db.refusals`.

    Within the store, failures are SQLAlchemy's errors (see `db.engine.UNAVAILABLE`); workers retry
    them.
    """


class SchemaMismatch(CatlogError):
    """Database schema of another catlog version.

    Raised by `db.migrations` before a command works, and by `store.queue.claims` when the schema
    has changed under a running worker.
    """


class DeclarationError(CatlogError):
    """Invalid provider file, resources file or view, or a change that a frozen version forbids.

    Raised by `declarations` with one line per mistake (file, place, remedy), by `store.views` for
    a view that PostgreSQL refuses, and by `scaffold` and the API for the files that they read.
    """


class NotFound(CatlogError):
    """Unknown name or id; the API answers with status 404.

    Raised by `store` for names of the database, by `declarations`, `commands` and `fleet` for
    names of the project: spiders, arguments, deployed versions.
    """


class NotPossible(CatlogError):
    """Valid request that the present state forbids; the API answers with status 409.

    Raised by `store` where a row's state forbids the change, by `db.refusals` where the database
    refuses a statement, by `commands`, `scaffold` and `fleet`
    where files or arguments do, and by the worker for a catalog that its project cannot run.
    """


class AttemptLost(CatlogError):
    """Attempt whose end could not be stored: the database was away until the attempt had to stop.

    Raised by `pipelines.store.persist`. The attempt's lease expires, and the instance runs again.
    """


class PublishRefused(CatlogError):
    """Catalog whose results must not become current, such as a load that removes too many records.

    Raised and caught by `store.publishing.publish`; the catalog fails with the message.
    """
