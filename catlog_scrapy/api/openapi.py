"""OpenAPI document, and the page that shows it."""

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from catlog_scrapy.api.path_prefix import public_path
from catlog_scrapy.api.problems import ProblemDetails, problem_responses

ABOUT = """Read loaded records and start loads.

**Authentication.** Log in with `POST /api/v1/token`, or use an API key. Send the token or the key
as `Authorization: Bearer ...`.

**Errors** are problem details (RFC 9457).

**Idempotency.** A change that is sent with an `Idempotency-Key` is executed at most once: the same
request with the same key returns the stored response for a day.

A trailing slash of a path is optional."""
TAGS = [
    {"name": "tokens", "description": "Log in and out with a user name and a password."},
    {"name": "resources", "description": "Read the records that the project publishes."},
    {"name": "loads", "description": "Start, retry and cancel loads and read their results."},
    {"name": "schedules", "description": "Manage the schedules that start loads."},
    {"name": "executors", "description": "Execute operations outside of catlog."},
    {"name": "health", "description": "Check the server."},
]
ASSETS = Path(fastapi_offline.__file__).parent / "static"
# The page contains an inline script that starts Swagger UI.
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; frame-ancestors 'none'"
)
# Problems of every request, and of every request that needs the database.
COMMON_PROBLEMS = problem_responses(400, 408, 413)
DATABASE_PROBLEMS = problem_responses(503, 504)


def serve_document(app: FastAPI, row_schemas: dict[str, Any]) -> None:
    """Let *app* serve `/openapi.json` and `/docs`; *row_schemas* are added by name."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build_document(app, row_schemas)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    app.mount("/docs/assets", StaticFiles(directory=ASSETS))

    @app.get("/openapi.json", include_in_schema=False)
    def document(request: Request) -> JSONResponse:
        prefix = public_path(request, "")
        return JSONResponse(openapi() | ({"servers": [{"url": prefix}]} if prefix else {}))

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=public_path(request, "/openapi.json"),
            title=app.title,
            swagger_js_url=public_path(request, "/docs/assets/swagger-ui-bundle.js"),
            swagger_css_url=public_path(request, "/docs/assets/swagger-ui.css"),
            swagger_favicon_url="data:,",
        )
        page.headers["Content-Security-Policy"] = DOCS_POLICY
        return page


def _build_document(app: FastAPI, row_schemas: dict[str, Any]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs", {}) | {"ProblemDetails": problem} | row_schemas
    for path, methods in document["paths"].items():
        common = COMMON_PROBLEMS if path == "/healthz" else COMMON_PROBLEMS | DATABASE_PROBLEMS
        for operation in methods.values():
            responses = operation["responses"]
            responses |= {str(status): problem for status, problem in common.items()} | responses
    return document
