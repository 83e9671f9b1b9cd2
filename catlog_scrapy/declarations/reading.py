"""Reading of the folders of provider files and views. Every mistake is collected."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from catlog_scrapy.declarations.model import (
    BackoffTable,
    KindTable,
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
from catlog_scrapy.records.sql_names import MAX_NAME_BYTES, SQL_NAME, reserved_mistake
from catlog_scrapy.sql_text import split_statements

TABLE_MODELS: dict[tuple[str, ...], type[Table]] = {
    (): ProviderFile,
    ("provider",): ProviderTable,
    ("scheme",): SchemeTable,
    ("scheme", "operation"): OperationTable,
    ("scheme", "operation", "tolerate"): TolerateTable,
    ("scheme", "operation", "backoff"): BackoffTable,
    ("scheme", "operation", "kinds"): KindTable,
    ("schedule",): ScheduleTable,
}
# The expected value and the remedy, by pydantic's type of the error.
EXPECTED = {
    "string_type": ("text", "write text in quotes"),
    "int_type": ("a whole number", "write digits, without quotes"),
    "bool_type": ("a boolean", "write true or false"),
    "list_type": ("a list", "write a list such as [...]"),
    "dict_type": ("a table", "write a table such as { name = ... }"),
    "model_type": ("a table", "write a table such as { name = ... }"),
    "greater_than": ("in range", "write a whole number above <gt>"),
    "greater_than_equal": ("in range", "write a whole number of at least <ge>"),
    "literal_error": ("a valid value", "write <expected>"),
    "too_short": ("long enough", "write at least one name"),
}
# Former names of fields, each with the name that replaced it.
RENAMED_FIELDS = {
    "alone": "standalone_arguments",
    "given_up": "failed_requests",
    "ignored": "blocked_by_robots",
}
SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


@dataclass(frozen=True)
class DeclaredProvider:
    """Provider file: its text and its validated tables."""

    source: SourceFile
    file: ProviderFile

    def location(self, scheme: str, operation: str = "") -> Location:
        """Return the location of a scheme, or of one of its operations."""
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
    """Read the provider files of *folder*, and return a line for each mistake in them.

    Files with mistakes are left out. Raises DeclarationError for a missing folder: read as an empty
    folder, it would retire every provider.
    """
    if not folder.is_dir():
        raise DeclarationError(
            f"the folder {folder} does not exist; create it, or correct CATLOG_PROVIDERS."
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
    """Read the SELECT of each view in *folder*, and return a line for each mistake in the files.

    A missing folder means no views.
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
    """List the files, without the hidden files of editors."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _text(path: Path) -> str:
    """Read a file's text. Raises ValueError with the mistake."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise ValueError(
            f"the file cannot be read ({error.strerror}); correct this, or move the file"
        ) from None


def _select(path: Path) -> str:
    """Read the single SELECT of a file, without its semicolon. Raises ValueError otherwise."""
    if not SQL_NAME.fullmatch(path.stem) or len(path.stem) > MAX_NAME_BYTES:
        raise ValueError(
            f': "{path.stem}" is not a valid view name; rename the file: lower-case letters, digits'
            f' and "_", at most {MAX_NAME_BYTES}'
        )
    if mistake := reserved_mistake(path.stem):
        raise ValueError(f": {mistake}; rename the file")
    try:
        text = _text(path)
    except ValueError as error:
        raise ValueError(f": {error}") from None
    statements = list(split_statements(text))
    if not statements:
        raise ValueError(": the file has no statement; write a SELECT, or remove the file")
    if len(statements) > 1:
        line = text.count("\n", 0, statements[1][0]) + 1
        raise ValueError(f":{line}: the file has a second statement; keep one SELECT")
    first, select = statements[0]
    return text[:first] + select


def _read(path: Path) -> tuple[SourceFile, list[str]]:
    """Parse the file as TOML, or return the line of its mistake."""
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
        position = f"line {match[2]} column {match[3]}" if match and match[2] else "end of the file"
        return source, [f"{source.name}: {position}: {reason}; correct the TOML syntax"]


def _explain(source: SourceFile, detail: ErrorDetails) -> str:
    """Format a mistake that pydantic found, in terms of the TOML file."""
    location: Location = detail["loc"]
    field = str(location[-1])
    match detail["type"]:
        case "extra_forbidden" if field in RENAMED_FIELDS:
            new = RENAMED_FIELDS[field]
            return source.mistake(location, f'"{field}" is now "{new}"; rename the field')
        case "extra_forbidden":
            known = TABLE_MODELS[tuple(step for step in location[:-1] if isinstance(step, str))]
            remedy = suggest(field, known.model_fields)
            return source.mistake(location, f'unknown field "{field}"; {remedy}')
        case "missing" if location == ("provider",):
            return source.mistake((), 'the table [provider] is missing; add it with name = "..."')
        case "missing":
            return source.mistake(location[:-1], f'the field "{field}" is missing; add it')
        case "value_error":
            return source.mistake(location, str(detail["ctx"]["error"]))
        case error:
            expected, remedy = EXPECTED.get(error, ("valid", detail["msg"]))
            for name, value in detail.get("ctx", {}).items():
                remedy = remedy.replace(f"<{name}>", str(value))
            message = f"{format_value(detail['input'])} is not {expected}; {remedy}"
            return source.mistake(location, message)
