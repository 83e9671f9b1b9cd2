"""OpenAPI documentation of the resources' routes.

The routes parse their parameters themselves: FastAPI would resolve every parameter that there could
be for each request, which took a third of the time of a page.
"""

from typing import Any

import orjson
from pydantic import BaseModel

from catlog_scrapy.api.problems import problem_responses
from catlog_scrapy.api.resources.parameters import row_schema
from catlog_scrapy.api.resources.readable_resource import ReadableResource

PROBLEMS = problem_responses(401, 403, 422)
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}]
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "`ETag` of an earlier response; the response is 304 if nothing has changed.",
    "schema": {"type": "string"},
    "example": '"0f343b0931126a20f133d67c2b018a3b"',
}
WARNING = {
    "Catlog-Warning": {
        "description": "The filter or order of a page of a large kind that no index supports.",
        "schema": {"type": "string"},
    }
}
ETAG = {
    "ETag": {
        "description": "Version of the response; absent if changes cannot be detected.",
        "schema": {"type": "string"},
    }
}
INSTANT = {"type": "string", "format": "date-time"}


def document_operation(
    *, path: type[BaseModel] | None = None, query: type[BaseModel]
) -> dict[str, Any]:
    """Return `openapi_extra` with the parameters of *path* and *query*."""
    parameters = _parameters("query", query)
    if path is not None:
        parameters = [*_parameters("path", path), *parameters]
    return {"parameters": parameters, "security": SECURITY}


def _parameters(place: str, model: type[BaseModel]) -> list[dict[str, Any]]:
    parameters = []
    for name, declared in model.model_json_schema().get("properties", {}).items():
        description = declared.pop("description", "")
        declared.pop("title", None)
        if declared.get("default", ...) is None:
            del declared["default"]
        # A parameter of a URL cannot be null.
        types = [type_ for type_ in declared.pop("anyOf", []) if type_ != {"type": "null"}]
        schema = {**types[0], **declared} if types else declared
        parameters.append(
            {
                "name": name,
                "in": place,
                "required": place == "path",
                "description": description,
                "schema": schema,
            }
        )
    return parameters


def list_responses(resource: ReadableResource) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a list."""
    content: dict[str, Any] = {"application/json": {"schema": _page_schema(resource)}}
    responses = dict(PROBLEMS)
    headers: dict[str, Any] = {}
    if resource.view:
        content["application/x-ndjson"] = {"schema": {"type": "string"}}
        content["text/csv"] = {"schema": {"type": "string"}}
        headers = ETAG | WARNING if resource.kind else ETAG
        responses[304] = {"description": "Nothing has changed since `If-None-Match`."}
    responses[200] = {"description": resource.about, "content": content, "headers": headers}
    return responses


def row_responses(resource: ReadableResource) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a single row."""
    schema = _row_reference(resource)
    row = {"description": "The row.", "content": {"application/json": {"schema": schema}}}
    return {**PROBLEMS, **problem_responses(404, 409), 200: row}


def history_responses(resource: ReadableResource) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a row's history."""
    content = {"application/json": {"schema": _history_schema(resource)}}
    states = {"description": "The states of the row, newest first.", "content": content}
    return {**PROBLEMS, **problem_responses(404), 200: states}


def row_schemas(resources: list[ReadableResource]) -> dict[str, Any]:
    """Return the JSON schemas of the resources' rows by name."""
    schemas: dict[str, Any] = {}
    for resource in resources:
        schemas |= _row_schemas(resource)
    return schemas


def _row_schemas(resource: ReadableResource) -> dict[str, Any]:
    """Return the schemas of a resource's rows, without columns that are hidden from some role."""
    public = resource.public_fields
    is_complete = public == resource.fields
    if resource.model is None:
        schema = row_schema(resource.source.columns, public)
        return {resource.path: {**schema, "additionalProperties": not is_complete}}
    schema = resource.model.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    # The parameter `fields` may omit each field.
    schema.pop("required", None)
    parts = schema.pop("$defs", {})
    if not is_complete:
        schema["properties"] = {
            name: part for name, part in schema["properties"].items() if name in public
        }
        schema["additionalProperties"] = True
        for name in ("examples", "example"):
            schema.pop(name, None)
        parts = _referenced(parts, schema)
    return {**parts, resource.path: schema}


def _referenced(parts: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return those *parts* that *schema* refers to, directly or through other parts."""
    found: dict[str, Any] = {}
    pending = [schema]
    while pending:
        text = orjson.dumps(pending.pop()).decode()
        for name, part in parts.items():
            if name not in found and f'"#/components/schemas/{name}"' in text:
                found[name] = part
                pending.append(part)
    return found


def _row_reference(resource: ReadableResource) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{resource.path}"}


def _page_schema(resource: ReadableResource) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "count": {
                "type": "integer",
                "description": "Number of rows of all pages; absent with `cursor`.",
            },
            "next": _url("URL of the next page; null for the last page."),
            "previous": _url("URL of the previous page; null for the first page."),
            "results": {
                "type": "array",
                "items": _row_reference(resource),
                "description": "Rows of the page.",
            },
        },
        "required": ["next", "previous", "results"],
    }


def _history_schema(resource: ReadableResource) -> dict[str, Any]:
    state = {
        "type": "object",
        "properties": {
            "valid_from": {**INSTANT, "description": "Time at which the state began."},
            "valid_to": {
                "type": ["string", "null"],
                "format": "date-time",
                "description": "Time at which the state ended; null for the current state.",
            },
            "change": {
                "enum": ["changed", "removed", None],
                "description": "Change that ended the state; null for the current state.",
            },
            **_row_schemas(resource)[resource.path]["properties"],
        },
        "required": ["valid_from", "valid_to", "change"],
    }
    return {
        "type": "object",
        "properties": {
            "next": _url("URL of older states; null if there are no older states."),
            "results": {"type": "array", "items": state, "description": "States, newest first."},
        },
        "required": ["next", "results"],
    }


def _url(description: str) -> dict[str, Any]:
    return {"type": ["string", "null"], "description": description}
