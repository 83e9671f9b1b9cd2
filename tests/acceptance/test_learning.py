"""Learning platform: secrets are stored nowhere, and a load of a day changes only that day.

Real processes of catlog's own project, against the local source, which misbehaves when told.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote_plus

import orjson
import pytest
from sqlalchemy import Engine

from catlog_scrapy.demo.learning import CLIENT, CLIENT_KEY
from catlog_scrapy.demo.server import DemoServer
from tests.support.forked import Command
from tests.support.project import inherited_environment
from tests.support.waiting import rows

ROOT = Path(__file__).parents[2]
KEY = "CATLOG_SECRET_LEARNING_CLIENT_KEY"
WRONG_KEY = "a wrong/key, of+nobody"
# The words of a key, whatever stands between them.
KEYS = re.compile(r"key\W+\w{0,6}of\W+\w{0,6}(?:the|nobody)", re.IGNORECASE)


class Platform:
    """Project of catlog in *home*, with the local platform; `said` is the printed output."""

    def __init__(self, database_url: str, home: Path, source: DemoServer) -> None:
        self.home = home
        self.source = source
        self.said = ""
        self.environment = {
            **inherited_environment(),
            "CATLOG_DATABASE_URL": database_url,
            "CATLOG_HOME": str(home),
            "CATLOG_BASE_URL_LEARNING": f"{source.url}/learning",
            "CATLOG_POLL": "0.1",
            "CATLOG_SECRET_LEARNING_CLIENT": CLIENT,
            KEY: CLIENT_KEY,
        }

    def scrapy(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run `scrapy ARGUMENTS...` with the log level DEBUG; return its output on one line."""
        command, *rest = arguments
        words = (command, "-s", "LOG_LEVEL=DEBUG", *rest)
        ended = Command(words, ROOT, self.environment | environment)
        said = "".join(ended.communicate())
        self.said += said
        assert ended.returncode == code, said
        return " ".join(said.split())  # long lines are broken

    def load(self, date: str, *arguments: str) -> str:
        return self.scrapy("load", "learning/attempts", "-a", f"date={date}", *arguments)

    def rewrite(self, change: Callable[[list[dict[str, object]]], None]) -> None:
        """Apply *change* to the attempts of the next response."""

        def rewritten(body: bytes) -> bytes:
            found = orjson.loads(body)
            change(found)
            return orjson.dumps(found)

        self.source.misbehave("/learning", rewrite=rewritten, times=1)


@pytest.fixture
def platform(database_url: str, tmp_path: Path) -> Iterator[Platform]:
    with DemoServer() as source:
        platform = Platform(database_url, tmp_path / "home", source)
        platform.scrapy("apply")
        yield platform


def everything_written(engine: Engine, platform: Platform) -> dict[str, str]:
    """Return all stored tables, files and printed output, by place."""
    tables = rows(
        engine,
        "SELECT relname FROM pg_class WHERE relnamespace = 'catlog'::regnamespace"
        " AND relkind IN ('r', 'p')",
    )
    written = {
        name: "\n".join(row for (row,) in rows(engine, f'SELECT t::text FROM catlog."{name}" t'))
        for (name,) in tables
    }
    for path in platform.home.rglob("*"):
        if path.is_file():
            written[str(path)] = path.read_bytes().decode(errors="replace")
    return {**written, "output": platform.said}


def leaks(written: dict[str, str]) -> list[str]:
    """Return the places of a key or of the client, quoted up to three times."""
    found = []
    for where, text in written.items():
        plain = unquote_plus(unquote_plus(unquote_plus(text)))
        if KEYS.search(plain) or KEYS.search(text) or CLIENT in plain:
            found.append(where)
    return found


def with_keys(found: list[dict[str, object]]) -> None:
    """Put the client key into the data of an invalid attempt and of some valid attempts."""
    found[0]["user_id"] = CLIENT_KEY
    found[1]["course"] = [CLIENT_KEY]
    found[2]["task"] = f"see {quote(CLIENT_KEY, safe='')}"
    found[3]["task"] = f'"{CLIENT_KEY}"'


def test_learning_secret_is_not_written_to_database_files_or_output(
    engine: Engine, platform: Platform
) -> None:
    assert leaks({"a": quote(quote(CLIENT_KEY)), "b": CLIENT, "c": WRONG_KEY, "d": "the key"}) == [
        *"abc"
    ]
    source, crawl = platform.source, ("crawl", "learning_attempts", "-a", "date=2026-01-05")
    platform.load("2026-01-05")
    refused = platform.scrapy(*crawl, code=1, **{KEY: WRONG_KEY})
    assert "HTTP 401 for http" in refused
    assert "client=***&client_key=***&start=" in refused
    source.misbehave("/learning", status=500, times=3)
    failed = platform.scrapy(*crawl, code=1)
    for said in ("Retrying", "Gave up retrying"):
        assert re.search(rf"{said} <GET \S+client_key=\*\*\*&start", failed)
    source.misbehave("/learning", body=b'{"error": "no"}', times=1)
    assert "has no array of objects: the source has changed" in platform.scrapy(*crawl, code=1)
    source.misbehave("/learning", redirect="/learning/elsewhere?from=" + quote(CLIENT_KEY), times=1)
    platform.scrapy(*crawl, code=1)

    platform.rewrite(with_keys)
    platform.load("2026-01-06")
    held = rows(
        engine,
        """SELECT errors ->> 0, count(*) FROM catlog.rejected_result
           WHERE data LIKE '%***%' GROUP BY 1 ORDER BY 1""",
    )
    assert held == [
        ("course: Input should be a valid string", 1),
        ("it contains the secret 'client_key', which must not be stored", 2),
        (f"user_id: Value error, the user id has {len(CLIENT_KEY)} characters, not 32", 1),
    ]

    said = platform.scrapy("load", "learning/attempts", "-a", "client_key=any", code=2)
    assert f"'client_key' is a secret and must come from the environment variable {KEY}" in said
    assert "None" in platform.scrapy("settings", "--get", KEY)

    written = everything_written(engine, platform)
    logs = [text for where, text in written.items() if where.endswith(".log")]
    assert len(logs) == 2
    assert all("client_key=***" in text for text in logs)
    assert leaks(written) == []


def test_learning_secret_reaches_an_isolated_process_and_is_not_written(
    engine: Engine, platform: Platform, tmp_path: Path
) -> None:
    own = tmp_path / "providers"
    own.mkdir()
    declared = (ROOT / "catlog_scrapy/providers/learning.toml").read_text(encoding="utf-8")
    (own / "learning.toml").write_text(
        declared.replace("tolerate =", "isolate = true\ntolerate ="), encoding="utf-8"
    )
    (tmp_path / "views").mkdir()
    folders = {"CATLOG_PROVIDERS": str(own), "CATLOG_VIEWS": str(tmp_path / "views")}
    platform.environment |= folders
    platform.scrapy("apply")
    platform.rewrite(with_keys)
    assert "loaded" in platform.load("2026-01-05")
    written = everything_written(engine, platform)
    [log] = [text for where, text in written.items() if where.endswith(".log")]
    assert "client_key=***" in log
    assert leaks(written) == []


def test_operation_without_its_secret_fails_with_the_missing_variable(
    engine: Engine, platform: Platform
) -> None:
    del platform.environment[KEY]
    platform.scrapy("crawl", "learning_attempts", code=1)
    [(error,)] = rows(engine, "SELECT error FROM catlog.instance_attempt")
    assert error == (
        "starting the spider: ConfigurationError: learning needs the secret 'client_key':"
        f" set the environment variable {KEY} where spiders run."
    )
    assert not any("/learning" in path for path in platform.source.requests)


def current(engine: Engine) -> dict[str, dict[int, str]]:
    """Return the `updated_at` of each learning attempt, by day and id."""
    found: dict[str, dict[int, str]] = {}
    for day, number, touched in rows(
        engine, "SELECT day::text, id, updated_at::text FROM learning_attempts"
    ):
        found.setdefault(day, {})[number] = touched
    return found


def test_backfill_loads_each_day_and_a_reload_changes_only_its_day(
    engine: Engine, platform: Platform
) -> None:
    days = [f"2026-01-0{number}" for number in range(1, 6)]
    made = platform.scrapy("backfill", "learning/attempts", "--from", days[0], "--to", days[-1])
    assert "5 catalogs queued" in made
    platform.scrapy("work", "--drain")
    assert rows(engine, "SELECT state, count(*) FROM catlog.catalog GROUP BY 1") == [("loaded", 5)]
    before = current(engine)
    assert sorted(before) == days
    statistics = rows(
        engine,
        """SELECT day::text, sum(attempts), sum(solved), count(DISTINCT course)
           FROM learning_statistics GROUP BY 1 ORDER BY 1""",
    )
    assert [(day, attempts) for day, attempts, _, _ in statistics] == [
        (day, len(before[day])) for day in days
    ]
    assert all(solved > 0 and courses == 3 for _, _, solved, courses in statistics)

    platform.source.change()
    platform.load(days[0])
    after = current(engine)
    assert {day: after[day] for day in days[1:]} == {day: before[day] for day in days[1:]}
    assert len(after[days[0]]) > len(before[days[0]])
    assert before[days[0]].items() <= after[days[0]].items()
    assert rows(engine, "SELECT count(*) FROM learning_attempts_history WHERE change <> ''") == [
        (0,)
    ]


def test_learning_test_mode_reads_an_hour_and_id_length_is_checked(
    engine: Engine, platform: Platform
) -> None:
    platform.load("2026-01-05", "-a", "test=1")
    [(first, last, count)] = rows(
        engine, "SELECT min(made_at), max(made_at), count(*) FROM learning_attempts"
    )
    assert first.isoformat() >= "2026-01-04T21:00:00+00:00"
    assert last.isoformat() < "2026-01-04T22:00:00+00:00"
    assert 0 < count < 40
    platform.scrapy(
        *("crawl", "learning_attempts", "-a", "date=2026-01-05", "-a", "id_length=31"), code=1
    )
    [(error,)] = rows(engine, "SELECT error FROM catlog.catalog WHERE state = 'failed'")
    assert (
        "tolerated 0.05; the first: user_id: Value error, the user id has 32 characters, not 31"
        in error
    )


def test_reset_prints_its_counts_and_the_next_load_creates_all_records(
    engine: Engine, platform: Platform
) -> None:
    days = ("--from", "2026-01-01", "--to", "2026-01-02")
    platform.scrapy("backfill", "learning/attempts", *days)
    said = platform.scrapy("reset", "learning/attempts", "--yes", code=2)
    assert re.search(r"catalog \S+ of learning/attempts is waiting; let it end", said)
    platform.scrapy("work", "--drain")
    before = current(engine)
    count = sum(map(len, before.values()))
    said = platform.scrapy("reset", "learning/attempts", code=1)
    assert f"would delete: {count} records of learning_attempts with 0 former versions" in said
    assert "nothing is deleted yet; scrapy reset learning/attempts --yes deletes it" in said
    assert current(engine) == before
    assert f"deleted: {count} records" in platform.scrapy("reset", "learning/attempts", "--yes")
    assert current(engine) == {}
    assert "2 catalogs queued" in platform.scrapy("backfill", "learning/attempts", *days)
    platform.scrapy("work", "--drain")
    assert {day: set(found) for day, found in current(engine).items()} == {
        day: set(found) for day, found in before.items()
    }
    assert "no scheme learning/nothing" in platform.scrapy("reset", "learning/nothing", code=2)
    assert "write one PROVIDER/SCHEME" in platform.scrapy("reset", "learning", code=2)
