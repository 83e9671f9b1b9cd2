"""Keyset pagination: conditions for rows after a position, so that an index has their order."""

from collections.abc import Sequence
from typing import NamedTuple

from catlog_scrapy.store.reading.page_query import OrderTerm, PageSource


class Branch(NamedTuple):
    """Rows that a page reads in the order of an index: WHERE conditions, and ORDER BY terms."""

    conditions: list[str]
    order: list[str]


def page_branches(
    source: PageSource, order: Sequence[OrderTerm], after: Sequence[str | None] | None
) -> list[Branch]:
    """Return the branches of a page in *order*, which begins after the position *after*.

    An index has NULLs at one end, the requested order maybe at the other. So rows with and without
    a value in the first column are read one after the other, and only as far as the page needs.
    """
    first, rest = order[0], order[1:]
    column = f't."{first.column}"'
    of_rest = [str(term) for term in rest]
    if not source.has_nulls and first.column in {term.column for term in source.order}:
        condition = [] if after is None else [_after_value(source, order, after)]
        return [Branch(condition, [str(first), *of_rest])]
    direction = " DESC" if first.descending else ""
    values = Branch([f"{column} IS NOT NULL"], [f"{column}{direction}", *of_rest])
    nulls = Branch([f"{column} IS NULL"], of_rest or [column])
    branches = [values, nulls] if first.nulls_last else [nulls, values]
    if after is None:
        return branches
    if after[0] is None:
        nulls.conditions.append(_after_rest(source, order, after, 1))
    else:
        values.conditions.append(_after_value(source, order, after))
    started = nulls if after[0] is None else values
    return branches[branches.index(started) :]


def _after_value(
    source: PageSource, order: Sequence[OrderTerm], position: Sequence[str | None]
) -> str:
    """Return the condition of a row after *position*, whose first column has a value.

    An index supports the comparison of the first column, or of rows in one direction.
    """
    columns = [f't."{term.column}"' for term in order]
    casts = [_after_cast(source, order, n) for n in range(len(order))]
    operator = "<" if order[0].descending else ">"
    of_source = [term.column for term in order] == [term.column for term in source.order]
    if of_source and len({term.descending for term in order}) == 1 and not source.has_nulls:
        return f"({', '.join(columns)}) {operator} ({', '.join(casts)})"
    rest = _after_rest(source, order, position, 1)
    return (
        f"({columns[0]} {operator}= {casts[0]} AND ({columns[0]} {operator} {casts[0]} OR {rest}))"
    )


def _after_rest(
    source: PageSource, order: Sequence[OrderTerm], position: Sequence[str | None], start: int
) -> str:
    """Return the condition that the columns of *order* from *start* on come after *position*."""
    alternatives = []
    for n in range(start, len(order)):
        term, column, cast = order[n], f't."{order[n].column}"', _after_cast(source, order, n)
        same = [
            f't."{order[m].column}" IS NOT DISTINCT FROM {_after_cast(source, order, m)}'
            for m in range(start, n)
        ]
        if position[n] is None:
            behind = "false" if term.nulls_last else f"{column} IS NOT NULL"
        else:
            behind = f"{column} {'<' if term.descending else '>'} {cast}"
            if term.nulls_last:
                behind = f"({behind} OR {column} IS NULL)"
        alternatives.append(f"({' AND '.join([*same, behind])})")
    return f"({' OR '.join(alternatives)})" if alternatives else "false"


def _after_cast(source: PageSource, order: Sequence[OrderTerm], number: int) -> str:
    return f"CAST(:after_{number} AS {source.columns[order[number].column]})"
