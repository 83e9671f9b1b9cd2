"""Output of `scrapy sql`: a table, one column a line, or CSV."""

import csv
import sys
from typing import Any

import orjson
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from catlog_scrapy.plurals import counted
from catlog_scrapy.store.reading.queries import QueryResult

UNLIMITED_WIDTH = 1_000_000


def shown(value: Any) -> str:
    """Format a value for a cell: jsonb as JSON, bytea in hexadecimal, null as nothing."""
    if isinstance(value, memoryview | bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=str).decode()
    return "" if value is None else str(value)


def print_table(console: Console, result: QueryResult) -> None:
    """Print a result as a table, or with one column a line if the terminal is too narrow."""
    table = Table(box=None)
    for name in result.columns:
        table.add_column(name, overflow="fold")
    for found in result.rows:
        table.add_row(*(shown(value) for value in found))
    if _is_too_wide(console, table):
        print_expanded(result)
        return
    console.print(table, markup=False)
    console.print(f"({counted(len(result.rows), 'row')})")


def _is_too_wide(console: Console, table: Table) -> bool:
    """Return whether the console is a terminal that breaks the cells of *table*."""
    if not console.is_terminal:
        return False
    options = console.options.update(width=UNLIMITED_WIDTH, markup=False)
    return Measurement.get(console, options, table).maximum > console.width


def print_expanded(result: QueryResult) -> None:
    """Print a result with one column a line, as `\\x` of psql does."""
    names = result.columns
    width = max(map(len, names), default=0)
    for number, found in enumerate(result.rows, 1):
        _line(f"-[ row {number} ]-")
        for name, value in zip(names, found, strict=True):
            lines = shown(value).split("\n")
            _line(f"{name:{width}} | {lines[0]}".rstrip())
            for further in lines[1:]:
                _line(f"{'':{width}} | {further}".rstrip())
    _line(f"({counted(len(result.rows), 'row')})")


def print_csv(result: QueryResult) -> None:
    """Print a result as CSV: that of a statement which COPY does not take, such as SHOW."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows([shown(value) for value in found] for found in result.rows)


def _line(text: str) -> None:
    sys.stdout.write(text + "\n")
