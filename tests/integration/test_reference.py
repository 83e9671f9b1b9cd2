"""The generated regions of the documentation's pages match the code."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine

ROOT = Path(__file__).parents[2]


def generator() -> ModuleType:
    """Return `docs/reference/generate.py`, which is not part of a package."""
    spec = importlib.util.spec_from_file_location(
        "generate", ROOT / "docs" / "reference" / "generate.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = generator()


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.stem)
def test_generated_page_matches_code(page: Path, engine: Engine) -> None:
    """Refuse a page that `python docs/reference/generate.py` would change."""
    text = page.read_text(encoding="utf-8")
    assert text == generate.render(text, engine)


def test_generator_refuses_field_without_description(engine: Engine) -> None:
    page = "<!-- generated: BackoffTable -->\n| `base` | duration | | the wait |\n<!-- end -->\n"
    with pytest.raises(ValueError, match="no description of cap"):
        generate.render(page, engine)
