"""Guard of the written English: openings and phrases that nobody can search for."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("catlog_scrapy", "tests", "benchmarks", "docs")
SUFFIXES = {".py", ".md", ".sql", ".toml", ".tmpl"}
# A docstring says what a thing is or does: a noun phrase or an imperative verb.
OPENING = re.compile(
    r"(What|Who|Whose|Whoever|Where|How|When|Which|Of|One|Nobody|Those|It|None|Such)\b"
)
# "X is not a valid Y; use Z" says more than a negated noun.
PHRASE = re.compile(r"(?<![Tt]here )\bis no (?!longer\b)|\bis none\b|\bnone of (its|this|these)\b")


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string, docstrings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each comment."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def violations(path: Path) -> list[str]:
    """List the banned openings and phrases of a file, with their lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        lines = enumerate(text.splitlines(), 1)
        return [f"{number}: {line.strip()}" for number, line in lines if PHRASE.search(line)]
    tree = ast.parse(text)
    return [
        *(
            f"{line}: {said.splitlines()[0]}"
            for line, said in docstrings(tree)
            if OPENING.match(said)
        ),
        *(
            f"{line}: {said}"
            for line, said in [*strings(tree), *comments(path)]
            if PHRASE.search(said)
        ),
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_texts_have_no_banned_opening_or_phrase(folder: str) -> None:
    texts = [path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    found = {str(path.relative_to(ROOT)): violations(path) for path in sorted(texts)}
    assert texts
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_pages_at_the_top_have_no_banned_phrase() -> None:
    assert {path.name: violations(path) for path in ROOT.glob("*.md") if violations(path)} == {}


def test_guard_finds_openings_and_phrases(tmp_path: Path) -> None:
    page, module = tmp_path / "page.md", tmp_path / "module.py"
    page.write_text("A token is" + " none.\n")
    module.write_text('"""What is loaded."""\n\nERROR = "5 is' + ' no text"\n# it is' + " none\n")
    assert violations(page) == ["1: A token is" + " none."]
    assert violations(module) == [
        "1: What is loaded.",
        "3: 5 is" + " no text",
        "4: # it is" + " none",
    ]
