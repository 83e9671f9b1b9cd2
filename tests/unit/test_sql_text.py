"""SQL text is split where PostgreSQL's scanner ends statements."""

import pytest

from catlog_scrapy.sql_text import first_word, split_statements


def statements(text: str) -> list[str]:
    return [statement for _, statement in split_statements(text)]


@pytest.mark.parametrize(
    "statement",
    [
        "select ';'",
        "select 'it''s;'",
        r"select E'\';'",
        r"select e'a\\'",
        "select U&'d\\0061t;'",
        'select 1 as ";"',
        'select 1 as "a"";"',
        'select U&"a;" from t',
        "select $$;$$",
        "select $a$ $$;$b$; $a$",
        "select $é1$;$é1$",
        "select /* ; /* ; */ ; */ 1",
        "select 1 -- ;\n + 1",
        "select b'1;', x'f;', n';'",
        "select $1",
        "select 1.5e3",
    ],
)
def test_semicolon_inside_a_token_ends_nothing(statement: str) -> None:
    assert statements(statement) == [statement]
    assert statements(f" {statement} ;\n; select 2;") == [statement, "select 2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select foo$a$; select 2 $a$", ["select foo$a$", "select 2 $a$"]),
        ("select 'a\\'; select 2", ["select 'a\\'", "select 2"]),
        ("select fooe'a'; select 2", ["select fooe'a'", "select 2"]),
        ("select $1a$; select 2", ["select $1a$", "select 2"]),
        ("select 1$$;$$; select 2", ["select 1$$;$$", "select 2"]),
        ("select é$a$; select 2 $a$", ["select é$a$", "select 2 $a$"]),
        ("select U&'a\\'; select 2", ["select U&'a\\'", "select 2"]),
        ("select /* a */ 1; /* b /* c */ ; */ select 2", ["select /* a */ 1", "select 2"]),
        ("select 'open; select 2", ["select 'open; select 2"]),
        ("select $$open; select 2", ["select $$open; select 2"]),
        ("-- nothing;\n; /* ; */ ;", []),
        ("", []),
    ],
)
def test_statements_are_split_at_semicolons_between_tokens(text: str, expected: list[str]) -> None:
    assert statements(text) == expected


def test_first_word_stands_behind_parentheses() -> None:
    assert [first_word(text) for text in ("SELECT 1", "((values (1)))", "-1", "")] == [
        "select",
        "values",
        "",
        "",
    ]
