"""Media of records: stored, linked and requested once; a failed image fails no load."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from sqlalchemy import Engine

from catlog_scrapy.demo.pictures import picture
from catlog_scrapy.demo.server import DemoServer
from tests.support.project import Project
from tests.support.source import Answer, Source
from tests.support.waiting import rows

PACKAGE = Path(__file__).parents[2] / "catlog_scrapy"
FUEL_SETTINGS = f"""
BOT_NAME = "shop"
SPIDER_MODULES = ["catlog_scrapy.spiders"]
ADDONS = {{"catlog_scrapy.addon.CatlogAddon": 500}}
CATLOG_PROVIDERS = {str(PACKAGE / "providers")!r}
CATLOG_VIEWS = {str(PACKAGE / "views")!r}
ROBOTSTXT_OBEY = True
RETRY_TIMES = 0
"""
STATION_IMAGES = [
    f"/fuel/images/{number}-{n}.png" for number in (101, 102, 103, 401) for n in (1, 2)
]


@pytest.fixture
def demo() -> Iterator[DemoServer]:
    with DemoServer(fuel_delay=0) as demo:
        yield demo


@pytest.fixture
def given_fuel(database_url: str, tmp_path: Path, demo: DemoServer) -> Callable[..., Project]:
    """Return a function that makes a project of the fuel network, with further settings."""

    def make(**settings: Any) -> Project:
        url = f"{demo.url}/fuel"
        project = Project(tmp_path, database_url, CATLOG_BASE_URL_TATNEFT=url)
        more = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
        project.write("shop/settings.py", FUEL_SETTINGS + more)
        project.scrapy("apply")
        return project

    return make


# Retries of the same failure would only take time.
FIRST_IS_LAST = "UPDATE catlog.catalog_scheme SET max_errors = 1 RETURNING id"


def media(project: Project) -> Path:
    return project.folder / ".catlog" / "media"


def asked(demo: DemoServer, part: str = "/images/") -> list[str]:
    """Return the paths of the media requests since the last call."""
    found = sorted(path for path in demo.requests if part in path)
    demo.visits.clear()
    return found


def images(engine: Engine) -> dict[int, list[str]]:
    return dict(rows(engine, "SELECT id, images FROM stations ORDER BY id"))


def stats(engine: Engine) -> dict[str, Any]:
    """Return the media statistics of the last attempt."""
    [(found,)] = rows(
        engine, "SELECT stats FROM catlog.instance_attempt ORDER BY started_at DESC LIMIT 1"
    )
    return {name: value for name, value in found.items() if name.startswith("media/")}


def states(engine: Engine) -> int:
    """Return the number of states in the stations' history."""
    [(count,)] = rows(engine, "SELECT count(*) FROM stations_history")
    return int(count)


def test_images_are_stored_once_and_linked(
    engine: Engine, given_fuel: Callable[..., Project], demo: DemoServer
) -> None:
    project = given_fuel()
    for scheme in ("stations", "references"):
        project.scrapy("load", f"tatneft/{scheme}")
    links = rows(
        engine,
        """SELECT url, link FROM stations,
               ROWS FROM (jsonb_array_elements_text(image_urls), jsonb_array_elements_text(images))
                   AS kept (url, link)
           UNION ALL SELECT icon_url, icon FROM fuel_types
           UNION ALL SELECT icon_url, icon FROM fuel_services""",
    )
    assert len({link for _, link in links}) == 8 + 3 + 5
    for url, link in links:
        with urlopen(url) as response:
            assert (media(project) / link).read_bytes() == response.read()
    assert len(list(media(project).rglob("*.*"))) == len(links)

    asked(demo)
    for scheme in ("stations", "references"):
        project.scrapy("load", f"tatneft/{scheme}")
    assert sorted(demo.requests) == [
        "/fuel/fuel-stations",
        "/fuel/fuel-types",
        "/fuel/services",
        *["/robots.txt"] * 3,
    ]
    assert states(engine) == 4


def test_failed_image_leaves_no_link_and_fails_no_load(
    engine: Engine, given_fuel: Callable[..., Project], demo: DemoServer
) -> None:
    project = given_fuel()
    demo.misbehave("/fuel/images/101-1", status=404)
    demo.misbehave("/fuel/images/102-1", body=b"<html>We have moved</html>")
    demo.misbehave("/fuel/images/103-1", rewrite=lambda body: body[: len(body) // 2])
    demo.misbehave("/fuel/images/401-1", cut=True)
    demo.misbehave("/fuel/images/401-2", body=b"")
    project.scrapy("load", "tatneft/stations")
    kept = images(engine)
    assert {id_: len(links) for id_, links in kept.items()} == {1: 1, 2: 1, 3: 1, 4: 0}
    said = stats(engine)
    first = said.pop("media/first_failure")
    assert first.startswith(f"{demo.url}/fuel/images/")
    assert said == {
        "media/failed": 5,
        "media/failed/HTTP 404": 1,
        "media/failed/UnidentifiedImageError": 1,
        "media/failed/OSError": 1,
        "media/failed/TruncatedResponse": 1,
        "media/failed/empty-content": 1,
    }

    # A second load changes nothing, and requests only missing images.
    asked(demo)
    project.scrapy("load", "tatneft/stations")
    assert images(engine) == kept
    assert states(engine) == 4
    lacking = ("101-1", "102-1", "103-1", "401-1", "401-2")
    assert asked(demo) == [f"/fuel/images/{name}.png" for name in lacking]

    demo.behave()
    project.scrapy("load", "tatneft/stations")
    assert {id_: len(links) for id_, links in images(engine).items()} == dict.fromkeys(kept, 2)
    assert states(engine) == 4 + 4


def test_failed_image_keeps_its_former_link(
    engine: Engine, given_fuel: Callable[..., Project], demo: DemoServer
) -> None:
    project = given_fuel(IMAGES_EXPIRES=-1)  # every load asks again
    project.scrapy("load", "tatneft/stations")
    kept = images(engine)
    asked(demo)
    demo.misbehave("/fuel/images/1", status=500)
    demo.misbehave("/fuel/images/4", body=b"no image")
    project.scrapy("load", "tatneft/stations")
    assert asked(demo) == STATION_IMAGES
    assert stats(engine)["media/failed"] == 8
    assert images(engine) == kept
    assert states(engine) == 4
    for links in kept.values():
        assert all((media(project) / link).read_bytes()[1:4] == b"PNG" for link in links)


def test_silent_media_server_is_given_up_soon(
    engine: Engine, given_fuel: Callable[..., Project], demo: DemoServer
) -> None:
    project = given_fuel(CATLOG_MEDIA_TIMEOUT=0.5, CONCURRENT_REQUESTS=1)
    demo.misbehave("/fuel/images", delay=600)
    project.scrapy("load", "tatneft/stations")
    assert set(map(len, images(engine).values())) == {0}
    # Three records of two images each are requested one after the other, then no more.
    assert len(asked(demo)) == 6
    said = stats(engine)
    assert said["media/failed/DownloadTimeoutError"] == 6
    assert said["media/failed/server silent"] == 2


def test_images_forbidden_by_robots_txt_are_not_requested(
    engine: Engine, given_fuel: Callable[..., Project], demo: DemoServer
) -> None:
    demo.misbehave("/robots.txt", body=b"User-agent: *\nDisallow: /fuel/images/4\n")
    given_fuel().scrapy("load", "tatneft/stations")
    assert [len(links) for links in images(engine).values()] == [2, 2, 2, 0]
    assert stats(engine)["media/failed/forbidden by robots.txt"] == 2
    assert asked(demo) == STATION_IMAGES[:-2]


def test_failing_media_store_fails_the_load(
    engine: Engine, given_fuel: Callable[..., Project], demo: DemoServer
) -> None:
    """A full disk is not the source's fault, and must not remove links."""
    project = given_fuel(IMAGES_STORE="there")
    rows(engine, FIRST_IS_LAST)
    project.write("there/full", "a file where a folder should be")
    project.scrapy("load", "tatneft/references", code=1)
    errors = rows(engine, "SELECT error FROM catlog.instance_attempt WHERE outcome = 'failed'")
    assert all("a pipeline: MediaNotStored: full/" in error for (error,) in errors)
    assert rows(engine, "SELECT count(*) FROM fuel_types") == [(0,)]


@pytest.mark.parametrize("store", ["nowhere://media", "s3://bucket"])
def test_missing_media_store_fails_the_load_with_the_reason(
    engine: Engine, given_fuel: Callable[..., Project], store: str
) -> None:
    project = given_fuel(IMAGES_STORE=store)
    rows(engine, FIRST_IS_LAST)
    project.scrapy("load", "tatneft/references", code=1)
    [(error,)] = rows(
        engine, "SELECT DISTINCT error FROM catlog.instance_attempt WHERE outcome = 'failed'"
    )
    assert f"IMAGES_STORE = {store!r} is not a usable store" in error
    assert "use a folder, or a URI as in Scrapy's documentation" in error


class Bucket(BaseHTTPRequestHandler):
    """Minimal S3 server for storing files."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[bytes, str]]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.objects[self.path] = (body, self.headers["Content-Type"])
        self._answer(200)

    def do_HEAD(self) -> None:
        self._answer(200 if self.path in self.objects else 404)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"0123"')
        self.send_header("Last-Modified", format_datetime(datetime.now(UTC), usegmt=True))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def bucket() -> Iterator[tuple[str, dict[str, tuple[bytes, str]]]]:
    """Run a minimal S3; yield its URL and its objects, bytes and content type by path."""
    Bucket.objects = {}
    http = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", Bucket.objects
    http.shutdown()
    http.server_close()


def test_images_are_stored_in_s3(
    engine: Engine,
    given_fuel: Callable[..., Project],
    demo: DemoServer,
    bucket: tuple[str, dict[str, tuple[bytes, str]]],
) -> None:
    url, objects = bucket
    project = given_fuel(
        IMAGES_STORE="s3://pictures/fuel/",
        AWS_ENDPOINT_URL=url,
        AWS_ACCESS_KEY_ID="someone",
        AWS_SECRET_ACCESS_KEY="something",
        AWS_REGION_NAME="eu-central-1",
    )
    project.scrapy("load", "tatneft/references")
    links = rows(engine, "SELECT icon_url, icon FROM fuel_types")
    assert len(links) == 3
    for icon_url, icon in links:
        assert icon.startswith("s3://pictures/fuel/full/")
        name = icon_url.removeprefix(f"{demo.url}/fuel/")
        body, kind = objects[icon.removeprefix("s3:/")]
        assert (body, kind) == (picture(name).body, "image/png")
    asked(demo)
    project.scrapy("load", "tatneft/references")
    assert asked(demo) == []
    assert not media(project).exists()


THINGS = """
import scrapy
from typing import Annotated
from catlog_scrapy.records import Batch, FilesOf, ImagesOf, Record, Unchanged


class Thing(Record, key="id", view="things"):
    id: int
    image_url: str | None = None
    image: Annotated[str | None, ImagesOf("image_url")] = None
    manual_urls: list[str] = []
    manuals: Annotated[list[str], FilesOf("manual_urls")] = []


class Plain(Record, key="id", view="plain_things"):
    id: int


class Things(scrapy.Spider):
    name = "things"
    record = (Thing, Plain)
    base_url: str = ""

    async def start(self):
        yield scrapy.Request(self.base_url + "/page")

    def parse(self, response):
        urls = [response.urljoin("/a.png"), None, "/relative.png", "file:///etc/passwd", "http://["]
        yield Batch([Thing.draft(id=n, image_url=url) for n, url in enumerate(urls)])
        yield Thing.draft(id=10, manual_urls=[response.urljoin(p) for p in ("/b.txt", "/a.png")])
        yield Thing.draft(id=11, image_url=12)
        yield Plain.draft(id=1)
        yield Unchanged(1, Plain)
"""
MAKER = """
[provider]
name = "maker"
base_url = "{url}"
[[scheme]]
name = "things"
[[scheme.operation]]
name = "things"
tolerate = {{ rejected = 1 }}
"""


def test_every_operation_can_store_images_and_files(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    with Source() as source:
        source.answers = {
            "/page": Answer(b"<p>"),
            "/a.png": Answer(picture("a").body),
            "/b.txt": Answer(b"Read me."),
        }
        project = Project(tmp_path, database_url, CATLOG_MEDIA_URL="https://cdn.example/kept")
        project.write("shop/spiders/things.py", THINGS)
        project.write("shop/providers/maker.toml", MAKER.format(url=source.url))
        project.scrapy("apply")
        project.scrapy("load", "maker/things")
    found = {
        id_: (image, manuals)
        for id_, image, manuals in rows(engine, "SELECT id, image, manuals FROM things")
    }
    image = found.pop(0)[0]
    manuals = found.pop(10)[1]
    assert found == {1: (None, []), 2: (None, []), 3: (None, []), 4: (None, [])}
    kept = [link.removeprefix("https://cdn.example/kept/") for link in (image, *manuals)]
    assert [(media(project) / path).read_bytes() for path in kept] == [
        picture("a").body,
        b"Read me.",
        picture("a").body,
    ]
    assert stats(engine)["media/failed/invalid URL"] == 3
    [(errors,)] = rows(engine, "SELECT errors FROM catlog.rejected_result")
    assert "image_url" in str(errors)


def test_scrapys_own_images_pipeline_still_works(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    """The project's ImagesPipeline works as in Scrapy, and catlog stores its results."""
    with Source() as source:
        source.answers = {"/page": Answer(b"<p>"), "/a.png": Answer(picture("a").body)}
        project = Project(tmp_path, database_url)
        with (tmp_path / "shop/settings.py").open("a") as settings:
            settings.write(
                'ITEM_PIPELINES = {"scrapy.pipelines.images.ImagesPipeline": 1}\n'
                f"IMAGES_STORE = {str(tmp_path / 'pictures')!r}\n"
            )
        project.write(
            "shop/spiders/things.py",
            """
            import scrapy

            class Things(scrapy.Spider):
                name = "things"
                base_url: str = ""

                async def start(self):
                    yield scrapy.Request(self.base_url + "/page")

                def parse(self, response):
                    for name in ("a.png", "gone.png"):
                        yield {"id": name, "image_urls": [response.urljoin("/" + name)]}
            """,
        )
        declaration = MAKER.format(url=source.url).replace("tolerate", "# tolerate")
        project.write("shop/providers/maker.toml", declaration + 'kind = "things"\nkey = "id"\n')
        project.scrapy("apply")
        project.scrapy("load", "maker/things")
    found = dict(rows(engine, "SELECT id, data -> 'images' FROM things"))
    assert found["gone.png"] == []
    [image] = found["a.png"]
    assert (tmp_path / "pictures" / image["path"]).is_file()


def test_united_view_shows_stations_prices_and_images(
    engine: Engine, given_fuel: Callable[..., Project], demo: DemoServer
) -> None:
    """The view is complete, as the network's clients get it."""
    project = given_fuel(CATLOG_MEDIA_URL="https://cdn.example/")
    for scheme in ("stations", "prices", "references"):
        project.scrapy("load", f"tatneft/{scheme}")
    kept = dict(
        rows(
            engine,
            """SELECT url, link FROM stations,
                   ROWS FROM (jsonb_array_elements_text(image_urls),
                       jsonb_array_elements_text(images)) AS kept (url, link)
               UNION SELECT icon_url, icon FROM fuel_types
               UNION SELECT icon_url, icon FROM fuel_services""",
        )
    )
    golden = (PACKAGE.parent / "tests/pages/fuel_stations/view.json").read_text(encoding="utf-8")
    for url, link in kept.items():
        assert link.startswith("https://cdn.example/full/")
        golden = golden.replace(json.dumps(url.removeprefix(demo.url)), json.dumps(link))
    found = rows(engine, "SELECT to_json(v) FROM fuel_stations v ORDER BY id")
    assert [station for (station,) in found] == json.loads(golden)
    columns = rows(
        engine,
        """SELECT column_name FROM information_schema.columns
           WHERE table_schema = 'public' AND table_name = 'fuel_stations'
           ORDER BY ordinal_position""",
    )
    assert [name for (name,) in columns] == (
        [
            "id",
            "coordinate_x",
            "coordinate_y",
            "number",
            "address",
            "image_urls",
            "fuels",
            "services",
        ]
    )


def test_united_view_without_prices_and_references(
    engine: Engine, given_fuel: Callable[..., Project]
) -> None:
    given_fuel().scrapy("load", "tatneft/stations")
    [(fuels, services)] = rows(engine, "SELECT fuels, services FROM fuel_stations WHERE id = 1")
    assert fuels == []
    assert services == [{"id": None, "name": name, "icon": None} for name in ("Кафе", "Автомойка")]


def test_station_that_returns_keeps_its_history(
    engine: Engine, given_fuel: Callable[..., Project], demo: DemoServer
) -> None:
    project = given_fuel()
    seen = []
    for _ in range(5):
        project.scrapy("load", "tatneft/stations")
        seen.append([id_ for (id_,) in rows(engine, "SELECT id FROM fuel_stations ORDER BY id")])
        demo.change()
    assert seen == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 4], [1, 2, 4], [1, 2, 3, 4]]
    gone, back = rows(
        engine,
        """SELECT change, images, services, valid_from, valid_to FROM stations_history
           WHERE id = 3 ORDER BY valid_from""",
    )
    assert (gone[0], back[0]) == ("removed", None)
    assert gone[1] == back[1]
    assert (gone[2], back[2]) == (["Зарядка", "Кафе"], ["Зарядка", "Кафе", "Подкачка шин"])
    assert gone[4] < back[3]


def test_slow_source_does_not_delay_other_operations(
    engine: Engine, given_fuel: Callable[..., Project], demo: DemoServer
) -> None:
    """With one worker, prices load during the stations' delay of four seconds."""
    demo.world.fuel_delay = DemoServer().world.fuel_delay
    project = given_fuel()
    rows(
        engine,
        """UPDATE catlog.schedule SET next_due_at = now()
           WHERE scheme_name IN ('stations', 'prices') RETURNING id""",
    )
    project.scrapy("schedule", "--once")
    project.scrapy("work", "--drain")
    loaded = rows(
        engine,
        """SELECT s.name FROM catlog.catalog c JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
           WHERE c.state = 'loaded' ORDER BY c.finished_at""",
    )
    assert [name for (name,) in loaded] == ["prices", "stations"]
    [stations, prices] = [
        next(visit for visit in demo.visits if visit.path == path)
        for path in ("/fuel/fuel-stations", "/fuel/fuel-prices")
    ]
    assert stations.ended and prices.ended
    assert stations.ended - stations.began >= 4
    assert prices.ended < stations.ended
