"""SQL text, split into statements as PostgreSQL's scanner reads it.

The split serves messages and convenience. Where a second statement must not run, PostgreSQL itself
checks: see `catlog.check_query` and `store.reading.queries`.
"""

import re
from collections.abc import Iterator

# Tokens that may contain a semicolon, and names, which may contain a quote or a dollar sign.
TOKEN = re.compile(
    r"""
      (?P<blank> \s+ | --[^\n\r]* )
    | (?P<comment> /\* )
    | [eE] ' (?: [^'\\] | \\. | '' )* (?: ' | \Z )
    | (?: [uU]& | [bBxXnN] )? ' (?: [^'] | '' )* (?: ' | \Z )
    | (?: [uU]& )? " (?: [^"] | "" )* (?: " | \Z )
    | \$ (?P<tag> (?: [^\W\d] \w* )? ) \$ .*? (?: \$ (?P=tag) \$ | \Z )
    | [^\W\d] [\w$]*
    | \$? \d [\w.]*
    | (?P<end> ; )
    | .
    """,
    re.DOTALL | re.VERBOSE,
)
COMMENT_EDGE = re.compile(r"/\*|\*/")


def split_statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield position and text of each statement, without its semicolon and blanks around it.

    Text without a statement, such as a comment alone, is left out.
    """
    first: int | None = None
    last = position = 0
    while position < len(text):
        token = TOKEN.match(text, position)
        assert token is not None  # the last alternative takes any character
        end = _comment_end(text, position) if token["comment"] else token.end()
        if token["end"]:
            if first is not None:
                yield first, text[first:last]
            first = None
        elif not token["blank"] and not token["comment"]:
            first = position if first is None else first
            last = end
        position = end
    if first is not None:
        yield first, text[first:last]


def first_word(statement: str) -> str:
    """Return the first word of a statement in lower case, behind parentheses."""
    found = re.match(r"[(\s]*(\w*)", statement)
    return found[1].lower() if found else ""


def _comment_end(text: str, position: int) -> int:
    """Return the end of a block comment; comments nest."""
    depth = 0
    for edge in COMMENT_EDGE.finditer(text, position):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)
