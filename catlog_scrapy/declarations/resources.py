"""`resources.toml`: the views that clients read over HTTP, and the roles that may read them."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from scrapy.settings import BaseSettings
from scrapy.utils.misc import load_object

from catlog_scrapy.declarations.column_visibility import ColumnVisibility
from catlog_scrapy.declarations.model import Table, TextList
from catlog_scrapy.declarations.roles import DEFAULT_ROLES, PERMISSION
from catlog_scrapy.declarations.source import suggest
from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.models.access import ROLES

PATH = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
# Paths of the server itself.
RESERVED_PATHS = frozenset(
    {
        "attempts",
        "audit",
        "catalog_results",
        "catalog_scheme_operation_instances",
        "catalog_scheme_operations",
        "catalog_schemes",
        "catalog_summaries",
        "catalogs",
        "media",
        "providers",
        "schedule_catalog_scheme_operation",
        "schedules",
        "token",
    }
)


def _path(value: str) -> str:
    if not PATH.fullmatch(value):
        raise ValueError(
            f'"{value}" is not a valid path; use words of lower-case letters and digits'
        )
    if value in RESERVED_PATHS:
        raise ValueError(f'the server itself uses the path "{value}"; choose another')
    return value


def _role(value: str) -> str:
    if value not in ROLES:
        raise ValueError(f'"{value}" is not a valid role; use {", ".join(ROLES)}')
    return value


def _permission(value: str) -> str:
    if not PERMISSION.fullmatch(value):
        raise ValueError(
            f'"{value}" is not a valid permission; use resource:action, such as "*:read"'
        )
    return value


Role = Annotated[str, AfterValidator(_role)]
Permission = Annotated[str, AfterValidator(_permission)]


class ResourceTable(Table):
    """Resource that publishes a view of `public`. The columns of `key` identify a row.

    `fields` lists the published columns in order (default: all), `search` the columns that
    `?search=` looks into, `read` the roles that may read. `filters` and `order` list columns of a
    kind's view by which clients select and sort; each gets an index. `hidden` hides columns from
    roles. `model` names a pydantic model of a row: its fields are published, with its descriptions.
    """

    view: str
    key: TextList
    fields: list[str] = []
    search: list[str] = []
    filters: list[str] = []
    order: list[str] = []
    read: list[Role] = []
    hidden: dict[str, list[Role]] = {}
    model: str | None = None


class ResourcesFile(Table):
    """All tables of the file. A role in `[roles]` loses its default permissions."""

    resources: dict[Annotated[str, AfterValidator(_path)], ResourceTable] = Field({})
    roles: dict[Role, list[Permission]] = {}


@dataclass(frozen=True)
class Resource:
    """Declared resource. `model` describes a row; `filters` and `order` are indexed columns."""

    path: str
    view: str
    key: tuple[str, ...]
    fields: tuple[str, ...]
    search: tuple[str, ...]
    visibility: ColumnVisibility = field(default_factory=ColumnVisibility)
    model: type[BaseModel] | None = None
    filters: tuple[str, ...] = ()
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resources:
    """Resources of a file, and the permissions of each role."""

    resources: tuple[Resource, ...]
    roles: Mapping[str, frozenset[str]]
    file: str = "resources.toml"


def read_resources(settings: BaseSettings) -> Resources:
    """Read the project's resources and roles. Without a file, only the default roles exist.

    Raises DeclarationError with a line for each mistake.
    """
    path = Path(settings["CATLOG_RESOURCES"])
    tables: dict[str, Any] = {}
    if not path.is_file() and settings.getpriority("CATLOG_RESOURCES"):
        raise DeclarationError(
            f"the file {path} does not exist; correct CATLOG_RESOURCES, or unset it."
        )
    if path.is_file():
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DeclarationError(f"{path.name}: {error}; correct the TOML syntax.") from error
    try:
        file = ResourcesFile.model_validate(tables)
    except ValidationError as error:
        lines = [
            f"{path.name}: {'.'.join(str(step) for step in part['loc'] if step != '[key]')}:"
            f" {part['msg']}"
            for part in error.errors()
        ]
        raise DeclarationError("\n  ".join(lines)) from error
    roles = {role: set(DEFAULT_ROLES[role]) for role in ROLES}
    roles |= {role: set(permissions) for role, permissions in file.roles.items()}
    for name, table in file.resources.items():
        for role in table.read:
            roles[role].add(f"{name}:read")
    resources = [_resource(path.name, name, table) for name, table in file.resources.items()]
    _require_known(path.name, file)
    permitted = {role: frozenset(permissions) for role, permissions in roles.items()}
    return Resources(tuple(resources), permitted, path.name)


def _require_known(name: str, file: ResourcesFile) -> None:
    known = {"*", *RESERVED_PATHS, *file.resources}
    for role, permissions in file.roles.items():
        for permission in permissions:
            resource = permission.partition(":")[0]
            if resource not in known:
                raise DeclarationError(
                    f"{name}: roles.{role}: unknown resource {resource!r};"
                    f" {suggest(resource, known)}."
                )


def _resource(file: str, path: str, table: ResourceTable) -> Resource:
    model = None
    if table.model:
        try:
            model = load_object(table.model)
        except (ValueError, NameError, ImportError) as error:
            raise DeclarationError(
                f"{file}: resources.{path}.model: {error}; name a pydantic model."
            ) from error
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise DeclarationError(
                f"{file}: resources.{path}.model: {table.model} is not a pydantic model; name a"
                " subclass of pydantic.BaseModel."
            )
    for column in table.key:
        if column in table.hidden:
            raise DeclarationError(
                f"{file}: resources.{path}.hidden: {column!r} is part of the key, which clients"
                " need to request a row; choose another key, or do not hide the column."
            )
    fields = table.fields or (list(model.model_fields) if model else [])
    visibility = ColumnVisibility.from_declaration(table.hidden)
    return Resource(
        path,
        table.view,
        tuple(table.key),
        tuple(fields),
        tuple(table.search),
        visibility,
        model,
        tuple(dict.fromkeys(table.filters)),
        tuple(dict.fromkeys(table.order)),
    )
