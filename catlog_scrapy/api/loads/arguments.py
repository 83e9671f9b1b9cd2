"""Arguments of loads and schedules in request bodies."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StringConstraints

from catlog_scrapy.api.problems import Problem
from catlog_scrapy.api.resources.parameters import Text
from catlog_scrapy.api.state import ServerState
from catlog_scrapy.declarations.spiders import misplaced_arguments
from catlog_scrapy.declarations.template_checks import template_mistake
from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.scheduling.argument_templates import DUE_AT
from catlog_scrapy.store.reading.status import scheme_operations
from catlog_scrapy.store.sql import Transaction

BASE_URL = "base_url"

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Arguments = Annotated[dict[Name, Text], Field(max_length=100)]


def require_known_arguments(
    tx: Transaction,
    state: ServerState,
    arguments: Mapping[str, str],
    *,
    provider: str,
    scheme: str,
    operation: str | None = None,
) -> None:
    """Raise Problem 422 for an argument that no spider of the scheme or *operation* may have.

    An external executor may know any argument, but its URLs are bounded like those of spiders.
    """
    if BASE_URL in arguments:
        # Otherwise a caller could redirect a spider, and with it the provider's secrets.
        message = "is set by the provider's file or the environment, not by a load"
        raise _invalid_arguments({BASE_URL: message})
    operations = [
        found
        for found in scheme_operations(tx, provider, scheme)
        if operation in (None, found["name"])
    ]
    if mistakes := misplaced_arguments(state.settings, provider, operations, arguments):
        raise _invalid_arguments(mistakes)
    if not operations or any(found["executor"] == "external" for found in operations):
        return
    try:
        state.capabilities.require_known(f"{provider}/{scheme}", operations, arguments)
    except NotFound as unknown:
        raise Problem(422, str(unknown), errors=[("body.arguments", str(unknown))]) from unknown


def require_valid_templates(arguments: Mapping[str, str]) -> None:
    """Raise Problem 422 for an argument that cannot be rendered from a due time."""
    mistakes = {
        name: mistake
        for name, template in arguments.items()
        if (mistake := template_mistake(template, {DUE_AT: DUE_AT}))
    }
    if mistakes:
        raise _invalid_arguments(mistakes)


def _invalid_arguments(mistakes: Mapping[str, str]) -> Problem:
    errors = [(f"body.arguments.{name}", mistake) for name, mistake in mistakes.items()]
    return Problem(422, f"{errors[0][0]}: {errors[0][1]}", errors=errors)
