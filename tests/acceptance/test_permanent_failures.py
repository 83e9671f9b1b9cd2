"""Errors that no retry can mend: the catalog fails at once; passing errors are retried.

One worker runs all cases; each test looks at what became of its own.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.support.cases import Case, check_case, outcomes, run_cases
from tests.support.postgres import Postgres
from tests.support.raw_source import RawSource, response

SHORT = 'backoff = { base = "0.1s", cap = "0.1s" }'


def case(spider: str, error: str, declared: str = "") -> Case:
    return Case(spider, error=error, declared=f"{SHORT}\n{declared}", scheme="max_errors = 2")


STARTS = """
    date: str = ""

    async def start(self):
        %s
        yield Request(self.base_url + "/ok")
"""
PERMANENT = {
    "missing_secret": case('token = ""', "CATLOG_SECRET_CASES_TOKEN"),
    "invalid_date": case(
        STARTS % "import datetime as dt\n        dt.date.fromisoformat(self.date)",
        "ValueError: month must be in 1..12; not retried, as it would fail again",
        'arguments = { date = "2026-13-01" }',
    ),
    "unknown_time_zone": case(
        STARTS % 'import zoneinfo\n        zoneinfo.ZoneInfo("Mars/Olympus")', "Mars/Olympus"
    ),
    "argument_that_is_no_number": case(
        """
    def __init__(self, pages="", **kwargs):
        super().__init__(**kwargs)
        self.pages = int(pages)
""",
        "invalid literal for int()",
        'arguments = { pages = "many" }',
    ),
    "argument_that_is_missing": case(
        """
    def __init__(self, pages, **kwargs):
        super().__init__(**kwargs)
""",
        "missing 1 required positional argument: 'pages'",
    ),
    "missing_secret_in_a_process_of_its_own": case(
        'token = ""', "CATLOG_SECRET_CASES_TOKEN", "isolate = true"
    ),
}
PASSING = {
    "connection_error_at_the_start": case(
        STARTS % "raise ConnectionResetError('reset by peer')", "2 attempts failed"
    ),
    "invalid_json_at_the_start": case(STARTS % "json.loads('<html>')", "2 attempts failed"),
    "value_error_after_a_request": case(
        """
    async def start(self):
        yield Request(self.base_url + "/ok")
        raise ValueError("later")
""",
        "2 attempts failed",
    ),
    "value_error_about_a_downloaded_response": case(
        STARTS % "await self.crawler.engine.download_async(Request(self.base_url + '/ok'))\n"
        "        raise KeyError('the page has no field of this name')",
        "2 attempts failed",
    ),
    "value_error_in_a_callback": case(
        """
    def parse(self, response):
        raise ValueError("the markup has changed")
""",
        "2 attempts failed",
    ),
}
CASES = PERMANENT | PASSING


@pytest.fixture(scope="module")
def loaded(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Run all cases once and return the database."""
    with postgres.clone() as url, RawSource() as source:
        source.answers = {"/ok": response(b'[{"id": "a"}]')}
        folder = tmp_path_factory.mktemp("permanent")
        engine = run_cases(folder, url, source.url, CASES, provider='secrets = ["token"]')
        yield engine
        engine.dispose()


@pytest.mark.parametrize("name", CASES)
def test_failing_start_names_its_error(loaded: Engine, name: str) -> None:
    check_case(loaded, name, CASES[name])


@pytest.mark.parametrize("name", PERMANENT)
def test_error_of_settings_or_arguments_is_not_retried(loaded: Engine, name: str) -> None:
    assert outcomes(loaded, name) == ["failed"]


@pytest.mark.parametrize("name", PASSING)
def test_other_error_is_retried(loaded: Engine, name: str) -> None:
    assert outcomes(loaded, name) == ["failed", "failed"]
