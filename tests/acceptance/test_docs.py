"""Every command and file printed in README and docs, run as printed in a fresh checkout."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import Answer, Source

TIMEOUT_S = 1800
pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT_S)]

ROOT = Path(__file__).parents[2]
EDIT = ROOT / "tests" / "support" / "edit.py"
TUTORIAL = "docs/tutorial.md"
ORNAMENTS = "docs/sources/ornaments.md"
# Moments, which differ.
TIME = re.compile(r"\d{4}-\d\d-\d\d( [\d:.+]+)?")
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

QUOTES = """
import scrapy


class Quotes(scrapy.Spider):
    name = "quotes"
    start_urls = ["{url}/quotes"]

    def parse(self, response):
        for quote in response.css("p"):
            yield {{"text": quote.css("q::text").get(), "author": quote.css("b::text").get()}}
"""
PIPELINE = """
class TutorialPipeline:
    def process_item(self, item):
        item["author"] = item["author"].title()
        return item
"""
PAGE = b"<p><q>To be.</q><b>william</b></p><p><q>Not to be.</q><b>william</b></p>"


def test_the_readme_works_as_printed(tmp_path: Path) -> None:
    """In an empty folder, without any virtual environment but the one it makes."""
    checkout = given_a_checkout(tmp_path)
    with Source() as source:
        source.answers["/quotes"] = Answer(PAGE, headers={"Content-Type": "text/html"})
        given_a_tutorial(tmp_path, checkout, source.url)
        answers = run(tmp_path, checkout, (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "tatneft/stations: loaded (4 seen" in answers
    assert re.search(r"1973 +21 ", answers)
    assert "William" in answers
    assert '"count":4,' in answers
    assert '"fuel_type": {"id": 1' in answers
    assert '"state":"loaded"' in answers
    assert '"results":[{"key":' in answers
    assert "Lamp 2" in answers


def test_the_tutorial_works_as_printed(tmp_path: Path) -> None:
    """In a folder that has nothing but a checkout, with the output that it prints."""
    checkout = given_a_checkout(tmp_path)
    page = (ROOT / TUTORIAL).read_text(encoding="utf-8")
    answers = run(tmp_path, checkout, page)
    for language, _, body in FENCE.findall(page):
        for line in body.splitlines() if language == "text" else ():
            assert " ".join(line.split()) in answers


PAGES = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}


@pytest.mark.parametrize("page", sorted(PAGES - {TUTORIAL, ORNAMENTS}))
def test_a_page_of_the_docs_works_as_printed(page: str, documented: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for language, about, body in FENCE.findall(text):
        if language == "sh":
            shell(documented, body)
        elif language == "python":
            compile(body, f"{page}{about}", "exec")


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose demo has run."""
    checkout = given_a_checkout(tmp_path_factory.mktemp("docs"))
    shell(checkout, "scrapy demo")
    return checkout


def given_a_checkout(folder: Path) -> Path:
    checkout = folder / "catlog"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".catlog", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "build"
    )
    shutil.copytree(ROOT, checkout, ignore=ignored)
    return checkout


def given_a_tutorial(folder: Path, checkout: Path, url: str) -> None:
    """What `scrapy startproject tutorial` makes, with a spider and a pipeline of its own."""
    shell(folder, "scrapy startproject tutorial")
    package = folder / "tutorial" / "tutorial"
    (package / "spiders" / "quotes.py").write_text(QUOTES.format(url=url))
    (package / "pipelines.py").write_text(PIPELINE)
    with (package / "settings.py").open("a") as settings:
        settings.write('ITEM_PIPELINES = {"tutorial.pipelines.TutorialPipeline": 300}\n')


def run(folder: Path, checkout: Path, text: str) -> str:
    """Write the files and run the commands of a page, in order, in one shell; what it said.

    `in` names the folder of a block, `file`, `append` and `edit` what it is written to; a block
    with `fails` has to.
    """
    script: list[str] = []
    for number, (language, about, body) in enumerate(FENCE.findall(text)):
        options = dict(option.split("=", 1) for option in about.split())
        script.append(f"cd {folder / options['in'] if 'in' in options else checkout}")
        block = folder / f"block-{number}"
        block.write_text(body, encoding="utf-8")
        if "file" in options or "append" in options:
            target = options.get("file") or options["append"]
            script.append(f"mkdir -p $(dirname {target})")
            script.append(f"cat {block} {'>' if 'file' in options else '>>'} {target}")
        elif "edit" in options:
            script.append(f"python {EDIT} {block} {options['edit']}")
        elif "fails" in options:
            script.append(f"if bash {block}; then echo it did not fail >&2; exit 1; fi")
        elif language == "sh":
            script.append(body)
    return shell(folder, "\n".join(script))


def shell(folder: Path, commands: str) -> str:
    """Run *commands* with bash, stopping at the first that fails; end what they left running."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CATLOG", "VIRTUAL_ENV", "PYTHONPATH"))
    }
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    ended = subprocess.run(
        ["bash", "-c", f"set -e; trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{commands}"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, f"{commands}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_the_queries_of_the_ornaments_answer_as_printed(tmp_path: Path) -> None:
    checkout = given_a_checkout(tmp_path)
    text = (ROOT / ORNAMENTS).read_text(encoding="utf-8")
    answer, compared = "", 0
    for language, _, body in FENCE.findall(text):
        if language == "sh":
            answer = shell(checkout, body)
        elif language == "text":
            # Records of one load are created at once, so that only the first of them is certain.
            rows = 2 if "created_at" in body else None
            assert lines(answer)[:rows] == lines(body)[:rows]
            compared += 1
    assert compared == 4


def lines(table: str) -> list[list[str]]:
    """The words of each line, without the moments."""
    return [TIME.sub("", line).split() for line in table.splitlines() if line.strip()]
