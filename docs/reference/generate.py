"""Fill the generated regions of the documentation's pages from the code.

`python docs/reference/generate.py` writes the pages; a test compares them. A region begins with
`<!-- generated: NAME -->` and ends with `<!-- end -->`; people write the text around it. In a table
of fields, settings excepted, people also write the last columns: the generator keeps them.
"""

import argparse
import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from scrapy.addons import AddonManager
from scrapy.cmdline import _get_commands_dict
from scrapy.settings import Settings
from scrapy.utils.project import get_project_settings
from sqlalchemy import CheckConstraint, Engine, UniqueConstraint
from sqlalchemy.dialects import postgresql

from catlog_scrapy import exceptions
from catlog_scrapy.commands import LazyCommand
from catlog_scrapy.config import SETTINGS, Setting
from catlog_scrapy.declarations import model
from catlog_scrapy.declarations.resources import ResourceTable
from catlog_scrapy.declarations.roles import DEFAULT_ROLES
from catlog_scrapy.models import Provider
from catlog_scrapy.models.catalog import CATALOG_STATES, INSTANCE_STATES, OUTCOMES
from catlog_scrapy.models.node import NODE_STATES
from catlog_scrapy.store.record_tables.layout import RECORD_COLUMNS, VERSION_COLUMNS, OwnColumn

DOCS = Path(__file__).parents[1]
REGION = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[\w. ]+) -->\n)(?P<body>.*?)(?P<end><!-- end -->)",
    re.DOTALL,
)
TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}

# The generator of a region gets the region's present text.
Generator = Callable[[str], str]


def pages() -> list[Path]:
    """Return the pages that have generated regions."""
    return [path for path in sorted(DOCS.rglob("*.md")) if REGION.search(path.read_text("utf-8"))]


def render(text: str, engine: Engine) -> str:
    """Return a page's *text* with its regions generated anew."""

    def fill(region: re.Match[str]) -> str:
        name = region["name"]
        generated = routes(engine) if name == "routes" else GENERATORS[name](region["body"])
        return f"{region['begin']}{generated.rstrip()}\n{region['end']}"

    return REGION.sub(fill, text)


def project_settings() -> Settings:
    """Return the project's settings, with the add-on's defaults."""
    found = get_project_settings()
    AddonManager.load_pre_crawler_settings(found)
    return found


# Tables in Markdown


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"|{'|'.join(map(cell, line))}|\n" for line in lines)


def cell(text: str) -> str:
    """Return *text* for a cell of a table: in one line, without bars."""
    words = " ".join(text.split()).replace("|", r"\|")
    return f" {words} " if words else " "


def code(text: Any) -> str:
    """Return *text* as code; nothing for no text."""
    return f"`{text}`" if text not in (None, "") else ""


def written(body: str, columns: int) -> dict[str, list[str]]:
    """Return the last *columns* cells of each row of a region's table, by the row's name."""
    rows: dict[str, list[str]] = {}
    for line in body.splitlines():
        cells = [part.strip() for part in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if cells and (name := re.fullmatch(r"`([^`]+)`", cells[0])):
            rows[name[1]] = [part.replace(r"\|", "|") for part in cells[-columns:]]
    return rows


def described(body: str, names: Iterable[str]) -> dict[str, list[str]]:
    """Return what people wrote of each name; raise ValueError for a name without description."""
    rows = written(body, 1)
    missing = [name for name in names if not rows.get(name, [""])[0]]
    if missing:
        raise ValueError(f"no description of {', '.join(missing)}; write one into the page")
    return rows


# The regions


def settings(_: str) -> str:
    """Return the table of settings."""

    def row(setting: Setting) -> tuple[str, ...]:
        value = setting.default
        number = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else value
        default = setting.default_text or code(number)
        if not setting.default_text and setting.unit == "seconds" and value >= 3600:
            default += f" ({duration(value)})"
        kind = TYPES.get(setting.type, setting.type.__name__)
        return code(setting.name), kind, default, setting.unit, setting.description

    public = [setting for setting in SETTINGS if not setting.is_internal]
    return table(("setting", "type", "default", "unit", "description"), map(row, public))


def commands(_: str) -> str:
    """Return a section for each command, with its arguments and options."""
    project = project_settings()
    known = _get_commands_dict(project, inproject=True)
    ours = {name: found for name, found in known.items() if isinstance(found, LazyCommand)}
    return "\n".join(command(name, ours[name], project) for name in sorted(ours))


def command(name: str, found: LazyCommand, project: Settings) -> str:
    """Return the section of one command."""
    found.settings = project
    parser = argparse.ArgumentParser(prog=f"scrapy {name}")
    found.add_options(parser)
    formatter = parser._get_formatter()
    rows = [
        (
            code(formatter._format_action_invocation(action)),
            formatter._expand_help(action) if action.help else "",
        )
        for group in parser._action_groups
        if group.title != "Global Options"
        for action in group._group_actions
        if "--help" not in action.option_strings
    ]
    parts = [
        f"## {name}",
        f"`scrapy {name} {found.syntax()}`".replace(" `", "`"),
        docstring(type(found.command)),
        *([table(("option", "description"), rows)] if rows else []),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def fields(table_: type[BaseModel], body: str) -> str:
    """Return the table of a declaration's fields; people write the descriptions."""
    rows = described(body, table_.model_fields)
    return table(
        ("field", "type", "default", "description"),
        (
            (code(name), type_name(field.annotation, field.metadata), default(field), rows[name][0])
            for name, field in table_.model_fields.items()
        ),
    )


def type_name(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return the TOML type of an annotation, in words."""
    arguments = [part for part in get_args(annotation) if part is not type(None)]
    origin = get_origin(annotation)
    if any(getattr(part, "func", None) is model.duration for part in metadata):
        words = "duration"
    elif hasattr(annotation, "__metadata__"):
        words = type_name(arguments[0], annotation.__metadata__)
    elif origin is list:
        words = f"list of {type_name(arguments[0])}s"
    elif origin is Literal:
        words = ", ".join(code(f'"{word}"') for word in arguments)
    elif origin is dict or (inspect.isclass(annotation) and issubclass(annotation, BaseModel)):
        words = "table"
    elif arguments:
        words = " or ".join(dict.fromkeys(map(type_name, arguments)))
    else:
        words = TYPES.get(annotation, "value")
    return words


def default(field: Any) -> str:
    """Return the default of a declaration's field, as TOML writes it."""
    value = field.default
    if value is PydanticUndefined:
        return "required" if field.is_required() else ""
    if value is None or value == "" or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, float):
        return code(f'"{duration(value)}"')
    return code(f'"{value}"' if isinstance(value, str) else value)


def duration(seconds: float) -> str:
    """Return *seconds* in the largest unit that divides them."""
    unit, size = next((unit, size) for unit, size in SECONDS.items() if seconds % size == 0)
    return f"{seconds / size:g}{unit}"


def states(words: Sequence[str], heads: Sequence[str], body: str) -> str:
    """Return a table of states; people write the other columns."""
    described(body, ())
    rows = written(body, len(heads) - 1)
    missing = [word for word in words if not rows.get(word, [""])[0]]
    if missing:
        raise ValueError(f"no description of {', '.join(missing)}; write one into the page")
    return table(heads, ((code(word), *rows[word]) for word in words))


def roles(_: str) -> str:
    """Return the table of roles and their permissions."""
    return table(
        ("role", "permissions"),
        ((code(role), ", ".join(map(code, sorted(may)))) for role, may in DEFAULT_ROLES.items()),
    )


def errors(_: str) -> str:
    """Return the table of exceptions."""
    found = [
        value
        for value in vars(exceptions).values()
        if inspect.isclass(value) and issubclass(value, exceptions.CatlogError)
    ]
    return table(("error", "description"), ((code(e.__name__), docstring(e)) for e in found))


def tables(_: str) -> str:
    """Return a section for each mapped table."""
    mappers = sorted(Provider.registry.mappers, key=lambda mapper: mapper.local_table.fullname)
    return "\n".join(mapped_table(mapper.class_) for mapper in mappers)


def own_columns(columns: Iterable[OwnColumn], _: str) -> str:
    """Return the table of catlog's own columns in a record table."""
    heads = ("column", "type", "null", "description")
    rows = [
        (
            code(column.name),
            column.definition.partition(" ")[0],
            "" if "NOT NULL" in column.definition or "KEY" in column.definition else "null",
            column.about,
        )
        for column in columns
    ]
    return table(heads, rows)


def mapped_table(mapped: Any) -> str:
    """Return the section of one table: columns, constraints and indexes."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    columns = [
        (
            code(column.name) + (" (key)" if column.primary_key else ""),
            column.type.compile(dialect).lower(),
            "" if not column.nullable else "null",
            code(server_default(column)),
            ", ".join(
                code(key.target_fullname.removeprefix("catlog.")) for key in column.foreign_keys
            ),
        )
        for column in mapped.__table__.columns
    ]
    notes = [
        *(
            "- unique: " + ", ".join(code(column.name) for column in constraint.columns)
            for constraint in sorted_by_name(mapped.__table__.constraints, UniqueConstraint)
        ),
        *(
            f"- check: {code(constraint.sqltext)}"
            for constraint in sorted_by_name(mapped.__table__.constraints, CheckConstraint)
        ),
    ]
    parts = [
        f"## {mapped.__tablename__}",
        docstring(mapped),
        table(("column", "type", "null", "default", "references"), columns),
        "\n".join(notes),
    ]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def server_default(column: Any) -> str:
    """Return a column's default, as SQL."""
    if column.identity is not None:
        return "identity"
    argument = getattr(column.server_default, "arg", "")
    return f"'{argument}'" if isinstance(argument, str) and argument else str(argument)


def sorted_by_name(constraints: Iterable[Any], kind: type[Any]) -> list[Any]:
    """Return the constraints of a *kind*, in the order of their text."""
    found = [constraint for constraint in constraints if isinstance(constraint, kind)]
    return sorted(found, key=lambda c: str(getattr(c, "sqltext", [k.name for k in c.columns])))


def module(name: str, _: str) -> str:
    """Return a section for each public class and function of a module."""
    found = import_module(name)
    public = getattr(found, "__all__", None) or [
        key
        for key, value in vars(found).items()
        if not key.startswith("_") and getattr(value, "__module__", "") == name and callable(value)
    ]
    return "\n".join(member(key, getattr(found, key)) for key in sorted(public))


def member(name: str, value: Any) -> str:
    """Return the section of a class or function, with its public methods."""
    methods = [
        (code(method + signature(function)), docstring(function))
        for method, function in vars(value).items()
        if inspect.isclass(value)
        and not method.startswith("_")
        and isinstance(function, classmethod | staticmethod | property | type(member))
        and docstring(function)
    ]
    called = "" if inspect.isclass(value) and issubclass(value, BaseModel) else signature(value)
    parts = [
        f"### {name}",
        code(name + called),
        docstring(value),
        table(("method", "description"), methods) if methods else "",
    ]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def signature(value: Any) -> str:
    """Return the parameters of a function or class; nothing for a property."""
    if isinstance(value, property):
        return ""
    found = inspect.signature(getattr(value, "__func__", value))
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in found.parameters.items()
        if name not in ("self", "cls")
    ]
    return str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def docstring(value: Any) -> str:
    """Return the docstring of *value*, without the indentation."""
    return inspect.getdoc(getattr(value, "fget", None) or value) or ""


def routes(engine: Engine) -> str:
    """Return a section for each tag of the OpenAPI document, and one for the schemas of bodies."""
    from catlog_scrapy.api.app import create_app
    from catlog_scrapy.declarations.capabilities import Capabilities
    from catlog_scrapy.declarations.resources import Resources

    permissions = {role: frozenset(may) for role, may in DEFAULT_ROLES.items()}
    app = create_app(
        engine, project_settings(), Resources((), permissions), Capabilities("", {}, {})
    )
    document = app.openapi()
    sections: dict[str, list[tuple[str, ...]]] = {}
    bodies: list[str] = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = body_of(operation)
            bodies += [body] if body and body not in bodies else []
            sections.setdefault(operation["tags"][0], []).append(
                (
                    code(f"{method.upper()} {path}"),
                    operation.get("summary", ""),
                    code(body),
                    ", ".join(sorted(status for status in operation["responses"] if status < "5")),
                )
            )
    heads = ("route", "does", "body", "responses")
    parts = [f"## {tag.capitalize()}\n\n{table(heads, rows)}" for tag, rows in sections.items()]
    schemas = [schema(name, document["components"]["schemas"][name]) for name in bodies]
    return "\n".join([*parts, "## Bodies\n", *schemas])


def body_of(operation: Mapping[str, Any]) -> str:
    """Return the name of an operation's body schema; empty if it has none."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    found = re.search(r"#/components/schemas/(\w+)", str(content))
    return found[1] if found else ""


def schema(name: str, found: Mapping[str, Any]) -> str:
    """Return the section of a body: its fields."""
    required = found.get("required", ())
    rows = [
        (
            code(field),
            json_type(about),
            "required" if field in required else code(about.get("default")),
            about.get("description", ""),
        )
        for field, about in found.get("properties", {}).items()
    ]
    heads = ("field", "type", "default", "description")
    return f"### {name}\n\n{found.get('description', '').strip()}\n\n{table(heads, rows)}"


def json_type(about: Mapping[str, Any]) -> str:
    """Return the type of a JSON schema, in words."""
    if "anyOf" in about:
        words = [json_type(part) for part in about["anyOf"]]
        return " or ".join(word for word in words if word != "null")
    if "enum" in about:
        return ", ".join(code(f'"{word}"') for word in about["enum"])
    if about.get("type") == "array":
        return "list of " + json_type(about.get("items", {})) + "s"
    return str(about.get("type", "value"))


GENERATORS: dict[str, Generator] = {
    "settings": settings,
    "commands": commands,
    "roles": roles,
    "exceptions": errors,
    "tables": tables,
    "record columns": partial(own_columns, RECORD_COLUMNS),
    "version columns": partial(own_columns, VERSION_COLUMNS),
    **{
        name: partial(module, name)
        for name in ("catlog_scrapy.records", "catlog_scrapy.testing.saved_pages")
    },
    **{
        table_.__name__: partial(fields, table_)
        for table_ in (
            model.ProviderTable,
            model.SchemeTable,
            model.OperationTable,
            model.KindTable,
            model.TolerateTable,
            model.BackoffTable,
            model.RefreshTable,
            model.ScheduleTable,
            ResourceTable,
        )
    },
    "catalog states": partial(states, CATALOG_STATES, ("state", "description", "left by")),
    "instance states": partial(states, INSTANCE_STATES, ("state", "description", "left by")),
    "node states": partial(states, NODE_STATES, ("state", "description", "left by")),
    "outcomes": partial(states, OUTCOMES, ("outcome", "description", "costs the catalog an error")),
}


def main() -> None:
    """Write every page that has generated regions."""
    from catlog_scrapy.db.embedded import EmbeddedServer
    from catlog_scrapy.db.engine import make_engine
    from catlog_scrapy.db.migrations import upgrade

    with tempfile.TemporaryDirectory(prefix="catlog-") as home, EmbeddedServer(Path(home)) as url:
        engine = make_engine(url)
        upgrade(engine)
        for page in pages():
            page.write_text(render(page.read_text("utf-8"), engine), encoding="utf-8")
        engine.dispose()


if __name__ == "__main__":
    main()
