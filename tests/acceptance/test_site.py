"""Build the documentation's site, and check the links that its generator does not see."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
REMOTE_ASSET = re.compile(
    r"""<(?:script|img|iframe|source)[^>]+src=["']?(?:https?:)?//"""
    r"""|<link[^>]+href=["']?(?:https?:)?//|@import|url\(["']?(?:https?:)?//"""
)


def test_site_builds_without_warnings_and_remote_assets(tmp_path: Path) -> None:
    """Build the site with warnings as errors: a broken link fails."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = [*(tmp_path / "site").rglob("*.html"), *(tmp_path / "site").rglob("*.css")]
    assert len(pages) > 20
    assert [page.name for page in pages if REMOTE_ASSET.search(page.read_text("utf-8"))] == []


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_root_pages_exist(page: str) -> None:
    """Check the links that the site's generator does not see."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target, _ in LINK.findall(text) if "://" not in target]
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_files_that_contributing_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)+/?(?:\.\w+)?|[a-z_]+/|[a-z_]+\.py)`", text)
    assert len(named) > 20
    named.remove("build/docs/")  # made by `make docs`
    places = (ROOT, ROOT / "catlog_scrapy")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_decisions_are_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = {target for target, _ in LINK.findall((folder / "README.md").read_text("utf-8"))}
    assert {path.name for path in folder.glob("*.md")} - {"README.md"} <= listed
