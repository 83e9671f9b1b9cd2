"""Translation of query parameters into a query of a resource's rows."""

from catlog_scrapy.api.former_names import former_name_error
from catlog_scrapy.api.problems import invalid_parameter
from catlog_scrapy.api.resources.cursors import decode_cursor
from catlog_scrapy.api.resources.parameters import (
    COLUMN_TYPES,
    Parameters,
    requested_filters,
)
from catlog_scrapy.api.resources.readable_resource import ReadableResource
from catlog_scrapy.store.reading.page_query import OrderTerm, PageQuery, PageSource


def build_query(
    resource: ReadableResource,
    parameters: Parameters,
    visible: tuple[str, ...],
    source: PageSource,
) -> PageQuery:
    """Build the query of a list. Raises Problem 422 for a parameter that *resource* lacks.

    *visible* are the fields that the caller may see; other fields are treated as unknown.
    """
    equal, bounds = requested_filters(parameters, visible)
    order = _order(resource, parameters.order, visible)
    after, backwards = None, False
    if parameters.cursor is not None and parameters.offset:
        raise invalid_parameter("offset", "leave it out: the cursor determines the first row")
    if parameters.cursor:
        after, backwards = decode_cursor(parameters.cursor, resource.path, order, source)
    return PageQuery(
        fields=_fields(resource, parameters.fields, visible),
        equal=equal,
        bounds=bounds,
        search=getattr(parameters, "search", None) or "",
        searched=tuple(name for name in resource.search if name in visible),
        order=order,
        limit=parameters.limit,
        offset=parameters.offset,
        after=after,
        backwards=backwards,
        as_of=getattr(parameters, "as_of", None),
    )


def refuse_paging(parameters: Parameters) -> None:
    """Raise Problem 422 for parameters that a stream of all rows does not have."""
    paging = {"limit", "offset", "cursor"} & parameters.model_fields_set
    if paging:
        raise invalid_parameter(min(paging), "leave it out of a stream, or use format=json")


def _fields(
    resource: ReadableResource, requested: str | None, visible: tuple[str, ...]
) -> tuple[str, ...]:
    if not requested:
        return visible
    names = tuple(dict.fromkeys(name.strip() for name in requested.split(",")))
    for name in names:
        _require_visible(resource, name, visible, "fields")
    return names


def _order(
    resource: ReadableResource, requested: str | None, visible: tuple[str, ...]
) -> tuple[OrderTerm, ...]:
    terms: dict[str, OrderTerm] = {}
    for word in requested.split(",") if requested else ():
        name = word.strip().removeprefix("-")
        _require_visible(resource, name, visible, "order")
        if resource.columns[name] not in COLUMN_TYPES:
            raise invalid_parameter("order", f"{name} is not a column that rows can be ordered by")
        terms[name] = OrderTerm(name, word.strip().startswith("-"), nulls="LAST")
    return tuple(terms.values())


def _require_visible(
    resource: ReadableResource, name: str, visible: tuple[str, ...], parameter: str
) -> None:
    """Raise Problem 422 for an unknown or hidden column.

    Both errors are equal: a role must not learn which columns are hidden.
    """
    if name not in visible:
        message = former_name_error(resource.path, name) or f"{name[:100]!r} is not a column"
        raise invalid_parameter(parameter, message)
