"""The OpenAPI document, and the page that shows it."""

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from catlog_scrapy.api.problems import ProblemDetails, problem_responses

ASSETS = Path(fastapi_offline.__file__).parent / "static"
# The page holds a script of its own, that starts the other one.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; frame-ancestors 'none'"
)

# What any request may be answered, and any that the database is asked for.
ANYWHERE = problem_responses(400, 408, 413)
FROM_DATABASE = problem_responses(503, 504)


def document(app: FastAPI, schemas: dict[str, Any]) -> None:
    """Let *app* serve `/openapi.json` and `/docs`; *schemas* are further ones by name."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            known = made.setdefault("components", {}).setdefault("schemas", {})
            problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
            known |= problem.pop("$defs", {}) | {"ProblemDetails": problem} | schemas
            for path, methods in made["paths"].items():
                for operation in methods.values():
                    answers = operation["responses"]
                    more = ANYWHERE if path == "/healthz" else ANYWHERE | FROM_DATABASE
                    answers |= {str(status): said for status, said in more.items()} | answers
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    app.mount("/docs/assets", StaticFiles(directory=ASSETS))

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="data:,",
        )
        page.headers["Content-Security-Policy"] = POLICY
        return page
