"""The folders of provider files and of views, read; every mistake is collected."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from catlog_scrapy.declarations.model import (
    BackoffTable,
    OperationTable,
    ProviderFile,
    ProviderTable,
    ScheduleTable,
    SchemeTable,
    Table,
    TolerateTable,
    format_value,
)
from catlog_scrapy.declarations.source import Location, SourceFile, label, suggest
from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.records.record import SQL_NAME as VIEW_NAME
from catlog_scrapy.records.sql_types import MAX_NAME_BYTES

TABLE_MODELS: dict[tuple[str, ...], type[Table]] = {
    (): ProviderFile,
    ("provider",): ProviderTable,
    ("scheme",): SchemeTable,
    ("scheme", "operation"): OperationTable,
    ("scheme", "operation", "tolerate"): TolerateTable,
    ("scheme", "operation", "backoff"): BackoffTable,
    ("schedule",): ScheduleTable,
}
REMEDY_BY_ERROR = {
    "string_type": "write text in quotes",
    "int_type": "write a whole number",
    "bool_type": "write true or false",
    "list_type": "write a list such as [...]",
    "dict_type": "write a table such as { name = ... }",
    "model_type": "write a table such as { name = ... }",
    "greater_than": "write a whole number above {gt}",
    "greater_than_equal": "write a whole number from {ge} on",
    "literal_error": "write {expected}",
    "too_short": "write at least one",
}
# Former names of fields, each with the one that replaced it.
RENAMED_FIELDS = {
    "alone": "standalone_arguments",
    "given_up": "failed_requests",
    "ignored": "blocked_by_robots",
}
# What a semicolon may stand in without ending a statement, and the semicolon itself.
TOKENS = re.compile(
    r"""[eE]'(?:[^'\\]|\\.|'')*'|'[^']*'|"[^"]*"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|;""",
    re.DOTALL,
)
BLANK_SQL = re.compile(r"(?:[\s;]|--[^\n]*|/\*.*?\*/)*", re.DOTALL)
SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


@dataclass(frozen=True)
class DeclaredProvider:
    """One provider file: what it says, and where it says it."""

    source: SourceFile
    file: ProviderFile

    def place(self, scheme: str, operation: str = "") -> Location:
        """Where the file speaks of a scheme, or of one of its operations."""
        for index, table in enumerate(self.file.scheme):
            if table.name != scheme:
                continue
            for number, found in enumerate(table.operation):
                if found.name == operation:
                    return ("scheme", index, "operation", number)
            if operation in table.operations:
                return ("scheme", index, "operations", table.operations.index(operation))
            return ("scheme", index)
        return ("provider",)


def read_providers(folder: Path) -> tuple[list[DeclaredProvider], list[str]]:
    """The provider files of *folder*, and a line for every mistake in them.

    A file with mistakes is not among the files. Raises DeclarationError for a missing folder:
    taken for an empty one, it would retire everything.
    """
    if not folder.is_dir():
        raise DeclarationError(
            f"there is no folder {folder}; make it, or set CATLOG_PROVIDERS to the right one."
        )
    declared: list[DeclaredProvider] = []
    mistakes: list[str] = []
    for path in _list_files(folder, "*.toml"):
        source, wrong = _read(path)
        if not wrong:
            try:
                declared.append(
                    DeclaredProvider(source, ProviderFile.model_validate(source.tables))
                )
            except ValidationError as error:
                wrong = [_explain(source, detail) for detail in error.errors()]
        mistakes += wrong
    return declared, mistakes


def read_views(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The SELECTs of the files of *folder* by the names of their views, and the mistakes in them.

    Without that folder there are none.
    """
    views: dict[str, str] = {}
    mistakes: list[str] = []
    for path in _list_files(folder, "*.sql"):
        try:
            views[path.stem] = _select(path)
        except ValueError as error:
            mistakes.append(f"{label(path)}{error}")
    return views, mistakes


def _list_files(folder: Path, pattern: str) -> list[Path]:
    """The files, without those that editors hide."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _text(path: Path) -> str:
    """A file's text. Raises ValueError with what is wrong with it."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror}); mend that, or move it") from None


def _select(path: Path) -> str:
    """The file's one statement, without what ends it. Raises ValueError saying where it is not."""
    if not VIEW_NAME.fullmatch(path.stem) or len(path.stem) > MAX_NAME_BYTES:
        raise ValueError(
            f': "{path.stem}" is no plain SQL name; rename the file: lower-case letters, digits and'
            f" underscores, {MAX_NAME_BYTES} at most"
        )
    try:
        text = _text(path)
    except ValueError as error:
        raise ValueError(f": {error}") from None
    end = next((match.start() for match in TOKENS.finditer(text) if match[0] == ";"), len(text))
    if BLANK_SQL.fullmatch(text[:end]):
        raise ValueError(": it has no SELECT; write one, or remove the file")
    rest = BLANK_SQL.match(text, end)
    if rest and rest.end() < len(text):
        line = text.count("\n", 0, rest.end()) + 1
        raise ValueError(
            f":{line}: it has more than one statement; a view is one SELECT: keep the first one"
        )
    return text[:end].rstrip()


def _read(path: Path) -> tuple[SourceFile, list[str]]:
    """The file as TOML, or the line that says why it is none."""
    source = SourceFile(label(path))
    try:
        text = _text(path)
    except ValueError as error:
        return source, [source.mistake((), str(error))]
    try:
        return SourceFile(source.name, text, tomllib.loads(text)), []
    except tomllib.TOMLDecodeError as error:
        match = SYNTAX.fullmatch(str(error))
        reason = match[1] if match else str(error)
        place = f"line {match[2]} column {match[3]}" if match and match[2] else "end of the file"
        return source, [f"{source.name}: {place}: {reason}; correct the TOML there"]


def _explain(source: SourceFile, detail: ErrorDetails) -> str:
    """A mistake that pydantic found, in the file's own words."""
    place: Location = detail["loc"]
    match detail["type"]:
        case "extra_forbidden":
            if place[-1] in RENAMED_FIELDS:
                new = RENAMED_FIELDS[str(place[-1])]
                return source.mistake(place, f'"{place[-1]}" is now "{new}"; rename it')
            known = TABLE_MODELS[
                tuple(step for step in place[:-1] if isinstance(step, str))
            ].model_fields
            what = f'unknown field "{place[-1]}"; {suggest(str(place[-1]), known)}'
            return source.mistake(place, what)
        case "missing" if place == ("provider",):
            return source.mistake((), 'the table [provider] is missing; add it with name = "..."')
        case "missing":
            return source.mistake(place[:-1], f'"{place[-1]}" is missing; add it')
        case "value_error":
            return source.mistake(place, str(detail["ctx"]["error"]))
        case kind:
            context: dict[str, Any] = detail.get("ctx", {})
            remedy = REMEDY_BY_ERROR.get(kind, detail["msg"]).format(**context)
            return source.mistake(place, f"is {format_value(detail['input'])}; {remedy}")
