"""`scrapy genoperation` and `scrapy golden` in a foreign project, on pages of a real server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import Project
from tests.support.source import Answer, Source

HTML = {"Content-Type": "text/html; charset=windows-1251"}
JSON = {"Content-Type": "application/json"}
PAGE = "<ul><li><b>Дуб</b> 3 <li><b>Ясень</b> 4</ul>".encode("windows-1251")
PRICES = [{"name": "oak", "price": 3}, {"name": "ash", "price": 4}]
# The file has comments, odd spaces and CRLF, which must stay.
PROVIDER = (
    '# Ours since 2020.\r\n[provider]\r\nname = "wood"   # and paper\r\n'
    'base_url = "{url}/shop"\r\n\r\n[[scheme]]\r\nname = "paper"\r\noperations = ["paper"]'
)
PAPER = """
    from catlog_scrapy.records import Record
    from scrapy import Spider


    class Sheet(Record, key="name", view="paper"):
        name: str


    class Paper(Spider):
        name = "paper"
        record = Sheet
"""


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with Source() as source:
        source.answers = {
            "/shop/trees?all=1": Answer(PAGE, headers=HTML),
            "/prices.json": Answer(json.dumps(PRICES).encode(), headers=JSON),
            "/api/v1": Answer(json.dumps({"count": 2, "results": PRICES}).encode(), headers=JSON),
            "/numbers": Answer(b"[1, 2]", headers=JSON),
            "/broken": Answer(b"[1, 2", headers=JSON),
            "/empty": Answer(b" ", headers=HTML),
            "/image": Answer(b"\x89PNG\0", headers={"Content-Type": "image/png"}),
            "/csv": Answer(b"name\noak\n", headers={"Content-Type": "text/csv"}),
            "/moved": Answer(status=302, headers={"Location": "/api/v1"}),
            "/robots.txt": Answer(b"User-agent: *\nDisallow: /private\n"),
            "/private": Answer(PAGE, headers=HTML),
        }
        yield source


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return given_a_project(tmp_path, None)


def given_a_project(folder: Path, url: str | None) -> Project:
    """Create a project with a spider `paper`, which no provider declares yet."""
    project = Project(folder, url)
    project.write("shop/spiders/printing.py", PAPER)
    return project


def given_a_provider(project: Project, source: Source) -> Path:
    path = project.write("shop/providers/wood.toml", "")
    path.write_bytes(PROVIDER.format(url=source.url).encode())
    return path


def files(project: Project) -> dict[str, bytes]:
    """Return the content of each file of the project, except files that a run writes."""
    return {
        str(path.relative_to(project.folder)): path.read_bytes()
        for path in project.folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".catlog"} & set(path.parts)
    }


def the_test(project: Project, name: str) -> tuple[int, str]:
    """Run the generated test; return its exit code and output."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/test_{name}.py"],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def fill_in(project: Project, name: str, old: str, new: str) -> None:
    path = project.folder / f"shop/spiders/{name}.py"
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_generated_operation_passes_its_test_and_loads(
    tmp_path: Path, database_url: str, source: Source
) -> None:
    project = given_a_project(tmp_path, database_url)
    project.write("shop/items/__init__.py", "")
    provider = given_a_provider(project, source)
    before, url = provider.read_bytes(), f"{source.url}/shop/trees?all=1#here"
    said = project.scrapy("genoperation", "trees", url)
    made = ["spiders/trees.py", "items/trees.py", "trees.items.json", "test_trees.py", "wood.toml"]
    assert all(one in said for one in made)
    assert (tmp_path / "tests/pages/trees/trees.html").read_text("utf-8") == PAGE.decode("cp1251")
    assert provider.read_bytes().startswith(before + b"\r\n\r\n[[scheme]]\r\nname = ")
    assert b"\n" not in provider.read_bytes().replace(b"\r\n", b"")
    linted = ["shop/spiders/trees.py", "shop/items/trees.py", "tests/test_trees.py"]
    subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", *linted], cwd=tmp_path, check=True
    )

    code, told = the_test(project, "trees")
    assert code == 1
    assert "trees?all=1 has no entries: the markup has changed" in told
    assert "Next: fill in shop/spiders/trees.py" in told
    assert "scrapy golden trees" in told
    assert "has no entries" in project.scrapy("golden", "trees", code=2)

    fill_in(project, "trees", 'FILL IN")', 'li")')
    fill_in(project, "trees", "FILL IN::", "b::")
    code, told = the_test(project, "trees")
    assert code == 1
    assert "trees.items.json is empty, and the page gives 2 items" in told
    assert '"name": "Дуб"' in told
    assert "2 items" in project.scrapy("golden", "trees")
    assert the_test(project, "trees")[0] == 0

    assert "+ view trees" in project.scrapy("apply")
    assert "wood/trees: loaded (2 created, 2 received" in project.scrapy("load", "wood/trees")


def test_golden_result_is_overwritten_only_with_force(project: Project, source: Source) -> None:
    project.scrapy("genoperation", "prices", f"{source.url}/prices.json")
    fill_in(project, "prices", '"FILL IN"', '"name"')
    project.scrapy("golden", "prices")
    page = project.folder / "tests/pages/prices/prices.json"
    assert "2 items, as before" in project.scrapy("golden", "prices")
    page.write_text(page.read_text().replace("oak", "elm"))
    code, told = the_test(project, "prices")
    assert (code, "scrapy golden --force prices" in told) == (1, True)
    assert '-  "name": "oak"' in told
    assert '+  "name": "elm"' in told
    assert "--force overwrites it" in project.scrapy("golden", "prices", code=2)
    project.scrapy("golden", "--force", "prices")
    assert the_test(project, "prices")[0] == 0
    assert 'did you mean "prices"?' in project.scrapy("golden", "price", code=2)
    assert "paper has no saved page" in project.scrapy("golden", "paper", code=2)
    assert "write the name of one spider" in project.scrapy("golden", code=2)


def test_genoperation_finds_records_in_a_redirected_json_page(
    project: Project, source: Source
) -> None:
    project.scrapy("genoperation", "prices", f"{source.url}/moved", "--provider", "wood")
    spider = (project.folder / "shop/spiders/prices.py").read_text("utf-8")
    assert "    name, price.\n" in spider
    assert 'return document["results"]' in spider
    assert "Input should be a valid string" in the_test(project, "prices")[1]
    fill_in(project, "prices", '"FILL IN"', '"name"')
    assert '{"name": "oak"}' in project.scrapy("golden", "prices")
    assert the_test(project, "prices")[0] == 0


def test_genoperation_reads_a_saved_page_of_a_given_kind(project: Project) -> None:
    saved = project.write("download", '{"a": [{"name": "oak"}]}')
    given = ("http://unreachable.invalid/x?y", "--page", "download")
    assert "neither HTML nor JSON" in project.scrapy("genoperation", "a", *given, code=2)
    project.scrapy("genoperation", "a", *given, "--kind", "json")
    assert (project.folder / "tests/pages/a/x.json").read_bytes() == saved.read_bytes()
    assert 'name = "unreachable_invalid"' in (
        project.folder / "shop/providers/unreachable_invalid.toml"
    ).read_text("utf-8")


def test_genoperation_uses_templates_of_scrapy_and_of_the_project(
    tmp_path: Path, database_url: str, source: Source
) -> None:
    project = given_a_project(tmp_path, database_url)
    listed = project.scrapy("genoperation", "--list").split()
    assert {"html", "json", "basic", "crawl"} <= set(listed)
    assert "start_urls" in project.scrapy("genoperation", "--dump", "basic")
    said = project.scrapy("genoperation", "rows", f"{source.url}/csv", "-t", "basic")
    assert "tests/pages/rows/csv.txt" in said
    assert "class Rows(scrapy.Spider)" in (tmp_path / "shop/spiders/rows.py").read_text("utf-8")
    assert "gives no items" in the_test(project, "rows")[1]
    fill_in(project, "rows", "pass\n", 'yield {"name": "oak"}\n')
    project.scrapy("golden", "rows")
    assert the_test(project, "rows")[0] == 0
    # The operation declares the kind of a spider without a record type.
    assert "+ view rows" in project.scrapy("apply")

    project.write("templates/spiders/html.tmpl", "# ours: $classname reads $url\n")
    with (tmp_path / "shop/settings.py").open("a") as settings:
        settings.write('TEMPLATES_DIR = "templates"\n')
    assert "basic" in project.scrapy("genoperation", "--list")
    project.scrapy("genoperation", "ours", f"{source.url}/shop/trees?all=1")
    spider = (tmp_path / "shop/spiders/ours.py").read_text("utf-8")
    assert spider == f"# ours: Ours reads {source.url}/shop/trees?all=1\n"


def test_genoperation_overwrites_files_only_with_force(project: Project, source: Source) -> None:
    url = f"{source.url}/prices.json"
    project.scrapy("genoperation", "prices", url, "-p", "wood")
    made = files(project)
    fill_in(project, "prices", '"FILL IN"', '"name"')
    filled = files(project)
    said = project.scrapy("genoperation", "prices", url, "-p", "wood", code=2)
    assert "shop/spiders/prices.py" in said
    assert "use --force to overwrite" in said
    assert files(project) == filled
    project.scrapy("genoperation", "prices", url, "-p", "wood", "--force")
    assert files(project) == made
    for path in ("shop/spiders/prices.py", "tests/test_prices.py"):
        (project.folder / path).unlink()
    (project.folder / "tests/pages/prices/prices.json").unlink()
    (project.folder / "tests/pages/prices/prices.items.json").unlink()
    said = project.scrapy("genoperation", "prices", url, "-p", "wood", code=2)
    assert 'has a scheme "prices" already' in said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/missing", "/missing was not fetched: the status is 404"),
        ("/private", "/private was not fetched: Forbidden by robots.txt"),
        ("/empty", "/empty is empty"),
        (
            "/csv",
            "/csv is neither HTML nor JSON; name its type with --kind, or a template with -t",
        ),
        ("/numbers", "/numbers has no array of objects"),
        ("/broken", "/broken is not valid JSON"),
    ],
)
def test_genoperation_refuses_an_unusable_page(
    project: Project, source: Source, path: str, said: str
) -> None:
    before = files(project)
    assert said in project.scrapy("genoperation", "trees", source.url + path, code=2)
    assert files(project) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trees"], "write a NAME and a URL; see scrapy genoperation -h"),
        (["Trees", "{url}"], '"Trees" is not a valid name of a spider and its view'),
        (["paper", "{url}", "-p", "other"], 'shop.spiders.printing has a spider "paper" already'),
        (["trees", "https://a:secret@a.example/x"], "the URL contains a user name or password"),
        (["trees", "{url}", "--page", "missing"], "missing cannot be read (No such file"),
        (["trees", "{url}", "--page", "image", "-t", "basic"], "/shop/x is not text"),
        (["trees", "{url}", "-t", "nothing"], 'unknown template "nothing"'),
        (["trees", "{url}", "-t", "broken"], "the template does not render valid Python"),
        (["trees", "{url}", "--colour"], "unknown option --colour"),
    ],
)
def test_genoperation_refuses_invalid_arguments(
    project: Project, source: Source, arguments: list[str], said: str
) -> None:
    project.write("page.html", "<p>A page.</p>")
    (project.folder / "image").write_bytes(b"\x89PNG\1\xff")
    project.write("broken.tmpl", "class $classname(")
    before = files(project)
    arguments = [word.format(url=f"{source.url}/shop/x") for word in arguments]
    if "--page" not in arguments:
        arguments += ["--page", "page.html"]
    told = project.scrapy("genoperation", *arguments, code=2)
    assert said in told
    assert "secret" not in told
    assert files(project) == before


def test_genoperation_refuses_a_project_with_invalid_declarations(
    project: Project, source: Source
) -> None:
    provider = given_a_provider(project, source)
    provider.write_bytes(provider.read_bytes() + b"\r\nversoin = 2\r\n")
    before = files(project)
    url = f"{source.url}/shop/trees?all=1"
    assert "wood.toml:9" in project.scrapy("genoperation", "trees", url, code=2)
    provider.write_bytes(before["shop/providers/wood.toml"].replace(b"versoin", b"max_errors"))
    project.write("shop/spiders/broken.py", "import nothing")
    assert "cannot be imported" in project.scrapy("genoperation", "trees", url, code=2)


def test_genoperation_refuses_what_apply_would_refuse(project: Project, source: Source) -> None:
    provider = given_a_provider(project, source)
    scheme = b'scheme = [{ name = "paper", operations = ["paper"] }]\r\n'
    provider.write_bytes(scheme + provider.read_bytes().partition(b"\r\n\r\n")[0])
    project.write("shop/views/trees.sql", "SELECT 1 AS one")
    before, url = files(project), f"{source.url}/shop/trees?all=1"
    assert "wood.toml" in project.scrapy("genoperation", "branches", url, code=2)
    assert files(project) == before
    given_a_provider(project, source)
    before = files(project)
    assert 'the kind "trees"' in project.scrapy("genoperation", "trees", url, code=2)
    assert files(project) == before


def test_failed_genoperation_leaves_no_files(project: Project, source: Source) -> None:
    provider = given_a_provider(project, source)
    project.write("tests/pages", "no folder")
    before = files(project)
    said = project.scrapy("genoperation", "trees", f"{source.url}/shop/trees?all=1", code=2)
    assert "cannot be written (" in said
    assert files(project) == before
    assert provider.exists()


def test_genoperation_reports_an_unreachable_server(project: Project) -> None:
    before = files(project)
    said = project.scrapy("genoperation", "trees", "http://127.0.0.1:1/", code=2)
    assert "was not fetched: " in said
    assert "use --page for a page that you saved" in said
    assert files(project) == before


def test_genoperation_outside_of_a_project_is_refused(tmp_path: Path, project: Project) -> None:
    (project.folder / "scrapy.cfg").unlink()
    said = project.scrapy("genoperation", "trees", "http://127.0.0.1:1/", code=2)
    assert "no Scrapy project here" in said
