"""Provider files: mistakes are reported with file, line, location and remedy."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from scrapy import Request, Spider
from scrapy.spiders import CrawlSpider

from catlog_scrapy.declarations.checking import CheckedProviders, check
from catlog_scrapy.declarations.reading import read_providers, read_views
from catlog_scrapy.declarations.spiders import (
    has_only_start_requests,
    operation_record_types,
    spider_arguments,
)
from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.records import Record
from catlog_scrapy.store.definitions import KindDefinition

HEAD = """\
[provider]
name = "acme"
"""


class Price(Record, key="id", view="prices"):
    id: str
    amount: float | None = None


class Link(Record, key=("id", "year"), view="links"):
    id: str
    year: int
    extra: Any = None


class Clash(Record, key="id", view="clashes"):
    id: str
    updated_at: str = ""


class History(Record, key="id", view="links_history"):
    id: str


class Version(Record, key="id", view="links_versions"):
    id: str


class LongNamed(Record, key="id", view="l" * 56):
    id: str


class Prices(Spider):
    name = "prices"
    record = Price
    year = ""
    page_size: int


class Links(Prices):
    name = "links"
    record: ClassVar[Any] = Link


class Both(Spider):
    name = "both"
    record = (Price, Link)


class Foreign(Spider):
    name = "foreign"


class Feed(Spider):
    name = "feed"
    record = Price
    cursor = ""
    fresh: ClassVar[dict[str, Any]] = {}


def a_spider(spider: str, record: type[Any]) -> type[Spider]:
    return type(spider.title(), (Spider,), {"name": spider, "record": record})


class OfOldScrapy(Prices):
    name = "of_old_scrapy"
    start_urls: ClassVar[list[str]] = ["http://shop.example"]

    def start_requests(self) -> Any:
        yield Request("http://shop.example/prices")


class Loader:
    """Spider loader of a project."""

    spiders: ClassVar[dict[str, type[Spider]]] = {
        spider.name: spider
        for spider in (
            Prices,
            Links,
            Both,
            Foreign,
            Feed,
            OfOldScrapy,
            a_spider("clash", Clash),
            a_spider("history", History),
            a_spider("version", Version),
            a_spider("long", LongNamed),
            a_spider("wrong", dict),
        )
    }

    def list(self) -> list[str]:
        return list(self.spiders)

    def load(self, spider_name: str) -> type[Spider]:
        return self.spiders[spider_name]

    def find_by_request(self, request: Request) -> "list[str]":
        return []


def checked(folder: Path, *files: str, views: tuple[str, ...] = ()) -> CheckedProviders:
    """Check provider files `a.toml`, `b.toml`, ..."""
    providers = folder / "providers"
    providers.mkdir()
    for name, text in zip("abc", files, strict=False):
        (providers / f"{name}.toml").write_text(text, encoding="utf-8")
    declared, mistakes = read_providers(providers)
    found = check(declared, Loader(), views)
    found.mistakes[:0] = mistakes
    return found


def an_operation(*lines: str) -> str:
    """Build a file whose lines from 8 on are *lines*, in an operation of the spider `prices`."""
    return "\n".join(
        [
            *HEAD.splitlines(),
            "",
            "[[scheme]]",
            'name = "daily"',
            "[[scheme.operation]]",
            'name = "prices"',
            *lines,
        ]
    )


def two_cities(msk: str, spb: str) -> str:
    """Build a file with two operations that write one kind, each with a further line."""
    cities = {"msk": msk, "spb": spb}
    kind = ('spider = "foreign"', 'kind = "things"', 'key = "id"')
    return a_scheme(
        *(
            line
            for name, further in cities.items()
            for line in ("[[scheme.operation]]", f'name = "{name}"', *kind, further)
        )
    )


def a_scheme(*lines: str) -> str:
    """Build a file whose lines from 5 on are *lines*, in a scheme `daily`."""
    return "\n".join([*HEAD.splitlines(), "[[scheme]]", 'name = "daily"', *lines])


def a_schedule(*lines: str) -> str:
    """Build a file whose lines from 9 on are *lines*, in a schedule."""
    schedule = ["[[schedule]]", 'name = "every day"', 'scheme = "daily"', *lines]
    return a_scheme('operations = ["prices"]', *schedule)


OPERATION = 'scheme "daily" operation "prices"'
MISTAKES = {
    # Syntax, tables and field names.
    "syntax": ("[provider\n", "providers/a.toml: line 1 column 10: Expected ']' at the end"),
    "syntax at the end": (HEAD + "x = [1,", "providers/a.toml: end of the file: Invalid value"),
    "no provider": ("", "providers/a.toml: the table [provider] is missing; add it"),
    "no name": ("[provider]\n", 'a.toml:1: provider: the field "name" is missing; add it'),
    "unknown table": (
        HEAD + "[[schema]]\n",
        'a.toml:3: schema: unknown field "schema"; did you mean "scheme"?',
    ),
    "unknown field": (
        HEAD + "max_runing = 2\n",
        'a.toml:3: provider max_runing: unknown field "max_runing"; did you mean "max_running"?',
    ),
    "unknown field of an operation": (
        an_operation('timeot = "1m"'),
        f'a.toml:8: {OPERATION} timeot: unknown field "timeot"; did you mean "timeout"?',
    ),
    "unknown field in an inline table": (
        an_operation("tolerate = { rejcted = 1 }"),
        f"a.toml:8: {OPERATION} tolerate.rejcted: unknown field",
    ),
    "a table for a field": (
        HEAD + "[provider.title]\n",
        "provider title: {} is not text; write text in",
    ),
    "a field for a table": (
        HEAD + "[scheme]\n",
        "a.toml:3: scheme: {} is not a list; write a list",
    ),
    "no scheme name": (HEAD + "[[scheme]]\n", 'a.toml:3: scheme 1: the field "name" is missing'),
    # Values.
    "a slash in a name": (
        HEAD.replace("acme", "a/b"),
        'name: "a/b" is not a valid name; use letters, digits',
    ),
    "a number as text": (HEAD + 'max_running = "2"', '"2" is not a whole number; write digits'),
    "a share of a worker": (HEAD + "max_running = 1.5", "1.5 is not a whole number; write digits"),
    "true for a number": (HEAD + "max_running = true", "true is not a whole number; write digits"),
    "no worker": (HEAD + "max_running = 0", "0 is not in range; write a whole number above 0"),
    "a base URL without host": (
        HEAD + 'base_url = "acme"',
        '"acme" is not a valid base_url; use an absolute URL',
    ),
    "version 0": (
        a_scheme("version = 0"),
        "version: 0 is not in range; write a whole number above 0",
    ),
    "a duration": (
        an_operation("timeout = 30"),
        f'a.toml:8: {OPERATION} timeout: 30 is not a valid duration; use a value such as "30s"',
    ),
    "no duration": (an_operation('keep = "0d"'), 'keep: "0d" is not a valid duration; use'),
    "a share above 1": (
        an_operation("tolerate = { removed = 1.5 }"),
        "tolerate.removed: 1.5 is not a valid tolerance; use a count such as 10, or a share",
    ),
    "a share that is not a number": (
        an_operation("tolerate.removed = nan"),
        "tolerate.removed: nan is not a valid tolerance; use a count",
    ),
    "a tag with a space": (
        an_operation('tags = ["big browser"]'),
        '"big browser" is not a valid name; use letters, digits',
    ),
    "a tag twice": (an_operation('tags = ["a", "a"]'), '"a" is listed twice; remove one'),
    "six fields of a cron line": (
        a_schedule('cron = "30 0 3 * * *"'),
        "use five fields such as 0 3 * * *",
    ),
    "the machine's time zone": (
        a_schedule('cron = "0 3 * * *"\ntimezone = "localtime"'),
        "timezone: 'localtime' is not a known time zone; use an IANA name",
    ),
    "less than nothing": (
        an_operation("tolerate.dropped = -1"),
        "tolerate.dropped: -1 is not a valid",
    ),
    "tolerating true": (
        an_operation("tolerate.dropped = true"),
        "true is not a valid tolerance; use a count",
    ),
    "a cap below its base": (
        an_operation('backoff = { base = "1h", cap = "1m" }'),
        "backoff: cap is shorter than base; use a cap of at least the base",
    ),
    "a mode": (
        an_operation('mode = "full"'),
        "\"full\" is not a valid value; write 'snapshot' or 'incremental'",
    ),
    "min_results": (
        an_operation("min_results = -1"),
        "-1 is not in range; write a whole number of at least 0",
    ),
    "a word for a flag": (
        an_operation('isolate = "yes"'),
        '"yes" is not a boolean; write true or false',
    ),
    "a number as an argument": (
        an_operation("arguments = { year = 2026 }"),
        f"a.toml:8: {OPERATION} arguments.year: 2026 is not text; write text in quotes",
    ),
    "no words": (
        an_operation("for_each = []"),
        "for_each: [] is not a valid for_each; use a kind's name, or",
    ),
    "a word twice": (
        an_operation('for_each = ["a", "a"]'),
        'for_each: "a" is listed twice; remove one of the two',
    ),
    "the former name of standalone_arguments": (
        an_operation('alone = ["year"]'),
        f'a.toml:8: {OPERATION} alone: "alone" is now "standalone_arguments"; rename the field',
    ),
    "the former name of failed_requests": (
        an_operation("tolerate = { given_up = 1 }"),
        'tolerate.given_up: "given_up" is now "failed_requests"; rename the field',
    ),
    "the former name of blocked_by_robots": (
        an_operation("tolerate = { ignored = 1 }"),
        'tolerate.ignored: "ignored" is now "blocked_by_robots"; rename the field',
    ),
    "alone without parts": (
        an_operation('standalone_arguments = ["year"]'),
        f"a.toml:8: {OPERATION} standalone_arguments: standalone_arguments needs"
        " for_each; add for_each, or remove",
    ),
    "alone twice": (
        an_operation('standalone_arguments = ["year", "year"]'),
        'standalone_arguments: "year" is listed twice; remove',
    ),
    "alone as one word": (
        an_operation('standalone_arguments = "year"'),
        'standalone_arguments: "year" is not a list; write a list such',
    ),
    "an unknown argument alone": (
        an_operation('for_each = ["a"]', 'standalone_arguments = ["yaer"]'),
        f'a.toml:9: {OPERATION} standalone_arguments.yaer: unknown argument "yaer" of the spider'
        ' "prices"; did',
    ),
    "alone what chooses parts": (
        a_scheme(
            'operations = ["links"]',
            "[[scheme.operation]]",
            'name = "prices"',
            'for_each = "links"',
            'standalone_arguments = ["year"]',
        ),
        'standalone_arguments: "year" already selects parts of a load; name an argument that is'
        ' not a field of "links"',
    ),
    "catch_up": (a_schedule('cron = "* * * * *"', 'catch_up = "all"'), "write 'latest' or 'none'"),
    "a schedule without cron": (
        a_schedule(),
        'a.toml:6: schedule "every day": the field "cron" is missing; add it',
    ),
    # Spiders, arguments and templates.
    "unknown spider": (
        a_scheme('operations = ["price"]'),
        'a.toml:5: scheme "daily" operation "price": unknown spider "price";'
        ' did you mean "prices"?',
    ),
    "unknown spider by field": (
        an_operation('spider = "pricse"'),
        f'a.toml:8: {OPERATION} spider: unknown spider "pricse"; did you mean "prices"?',
    ),
    "unknown argument": (
        an_operation('arguments = { yaer = "1" }'),
        f'a.toml:8: {OPERATION} arguments.yaer: unknown argument "yaer" of the spider "prices";'
        ' did you mean "year"?',
    ),
    "unknown argument in a table": (
        an_operation("[scheme.operation.arguments]", 'yaer = "1"'),
        'a.toml:9: scheme "daily" operation "prices" arguments.yaer: unknown argument',
    ),
    "unknown placeholder": (
        an_operation('arguments.year = "{due}"'),
        'arguments.year: unknown placeholder "{due}"; did you mean "due_at"?',
    ),
    "a placeholder without a name": (an_operation('arguments.year = "{}"'), 'placeholder "{}"'),
    "part of nothing": (
        an_operation('arguments.year = "{part}"'),
        'the placeholder "{part}" needs for_each; add for_each',
    ),
    "a brace": (an_operation('arguments.year = "{due_at"'), "write {{ and }} for plain braces"),
    "no directive": (
        an_operation('arguments.year = "{due_at:%Q}"'),
        '("%Q" is not a directive of strftime); use for example {due_at:%Y-%m-%d}',
    ),
    "a format without directives": (
        an_operation('arguments.year = "{due_at:YYYY}"'),
        '("YYYY" contains no % directive)',
    ),
    "an attribute": (
        an_operation('arguments.year = "{due_at.fold:c}"'),
        "(due_at takes only a format); use for example {due_at:%Y-%m-%d}",
    ),
    "a conversion": (an_operation('arguments.year = "{due_at!r}"'), "takes only a format"),
    "a placeholder in a placeholder": (
        an_operation('arguments.year = "{due_at:%Y{due_at.fold:c}}"'),
        "(a placeholder contains a placeholder)",
    ),
    "a width of its own": (
        an_operation('for_each = ["a"]', 'arguments.year = "{part:>300000000}"'),
        '(the width in ">300000000" is too large); use for example {part}',
    ),
    "a format of a field": (
        a_scheme(
            'operations = ["links"]',
            "[[scheme.operation]]",
            'name = "prices"',
            'for_each = "links"',
            'arguments = { year = "{year:%Y}" }',
        ),
        "is not a valid template (Invalid format specifier",
    ),
    "unknown kind": (
        an_operation('for_each = "prces"'),
        f'a.toml:8: {OPERATION} for_each: no operation of this provider writes the kind "prces";'
        ' did you mean "prices"?',
    ),
    # Cursors and refreshing.
    "an overlap of a snapshot": (
        an_operation('overlap = "10m"'),
        f'a.toml:8: {OPERATION} overlap: overlap needs a cursor; write mode = "incremental"',
    ),
    "a spider whose requests Scrapy ignores": (
        an_operation('spider = "of_old_scrapy"'),
        f'a.toml:8: {OPERATION} spider: the spider "of_old_scrapy" has start_requests(), which'
        " Scrapy 2.19 does not call; rename it to `async def start(self)`",
    ),
    "an overlap without a cursor": (
        an_operation('mode = "incremental"', 'overlap = "10m"'),
        'overlap: overlap needs a cursor; add `cursor = ""` to the spider "prices"',
    ),
    "a refresh without a field": (
        an_operation('spider = "feed"', 'refresh = { every = "7d" }'),
        'refresh: the field "by" is missing; add it',
    ),
    "a refresh by an unknown field": (
        an_operation('spider = "feed"', 'refresh = { every = "7d", by = "ammount" }'),
        'refresh.by: unknown field "ammount"; did you mean "amount"?',
    ),
    "a refresh of several record types": (
        an_operation('spider = "both"', 'refresh = { every = "7d", by = "id" }'),
        'refresh: refresh needs a spider with one record type, and "both" has 2; remove refresh',
    ),
    "a refresh that nobody asks for": (
        an_operation('refresh = { every = "7d", by = "id" }'),
        "refresh: refresh needs a spider that skips fresh records; add `fresh = {}` to the spider",
    ),
    # Kinds.
    "no record type": (
        a_scheme('operations = ["foreign"]'),
        'operation "foreign": the spider "foreign" has no record type; add `record` to the spider',
    ),
    "a kind too many": (
        an_operation('kind = "x"', 'key = "id"'),
        'the spider "prices" has its own record type; remove kind, key',
    ),
    "external without a kind": (
        an_operation('executor = "external"'),
        "an external executor needs a declared kind; add kind, key",
    ),
    "external with a spider": (
        an_operation('executor = "external"', 'kind = "x"', 'key = "id"', 'spider = "feed"'),
        "spider: spider has no effect on an external executor; remove it",
    ),
    "external with what spiders lack": (
        an_operation('executor = "external"', 'kind = "x"', 'key = "id"', 'stall_timeout = "9s"'),
        "stall_timeout: stall_timeout has no effect on an external executor; remove it",
    ),
    "external that gives requests up": (
        an_operation(
            'executor = "external"', 'kind = "x"', 'key = "id"', "tolerate.failed_requests = 3"
        ),
        "tolerate.failed_requests: failed_requests has no effect on an external executor, which"
        " reports failures itself; remove it",
    ),
    "an unknown type": (
        an_operation('executor = "external"', 'kind = "x"', 'key = "id"', 'fields.n = "int"'),
        "'int' is not a valid type of n; use one of text, bigint",
    ),
    "a kind with an invalid SQL name": (
        an_operation('executor = "external"', 'kind = "X y"', 'key = "id"'),
        "'X y' is not a valid SQL name",
    ),
    "a column of the view": (
        a_scheme('operations = ["clash"]'),
        'the kind "clashes" has a field "updated_at", which is a column of its view; rename',
    ),
    "a column of a foreign view": (
        an_operation('executor = "external"', 'kind = "x"', 'key = "data"'),
        'the kind "x" has a field "data", which is a column of its view',
    ),
    "one kind, two shapes": (
        two_cities('fields.n = "bigint"', 'fields.n = "text"'),
        'a.toml:11: scheme "daily" operation "spb": the kind "things" differs from the kind of'
        " this name that acme/daily/msk writes; share one record type",
    ),
    "a history as a kind": (
        a_scheme('operations = ["links", "history"]'),
        'the history view "links_history" of the kind "links" has the name of a kind that'
        " acme/daily/history writes; rename one of the kinds",
    ),
    "a long name": (
        a_scheme('operations = ["long"]'),
        "a name of 56 bytes; use a view name of at most 54",
    ),
    "the name of a table of versions": (
        a_scheme('operations = ["links", "version"]'),
        'the table of versions "links_versions" of the kind "links" has the name of a kind that',
    ),
    "no record type in record": (
        a_scheme('operations = ["wrong"]'),
        '`record` of the spider "wrong" is not a record type; derive the class from',
    ),
    # References between schemes and schedules.
    "a scheme twice": (
        a_scheme('operations = ["prices"]', "[[scheme]]", 'name = "daily"', "version = 2"),
        'a.toml:6: scheme "daily": the file has two schemes of this name; keep the newest version',
    ),
    "an operation twice": (
        a_scheme('operations = ["links", "links"]'),
        "the scheme has two operations of this name",
    ),
    "neither": (
        a_scheme(),
        'a.toml:3: scheme "daily": the scheme has neither operations nor includes',
    ),
    "both": (
        a_scheme('operations = ["prices"]', 'includes = ["daily"]'),
        'scheme "daily": a scheme has either operations or includes; move the',
    ),
    "unknown include": (
        a_scheme('includes = ["dayly"]'),
        'a.toml:5: scheme "daily" includes: unknown scheme "dayly"; did you mean "daily"?',
    ),
    "an include twice": (
        a_scheme('includes = ["x", "x"]', "[[scheme]]", 'name = "x"', 'operations = ["prices"]'),
        'scheme "daily" includes: "x" is listed twice; remove one of the two',
    ),
    "a circle": (
        a_scheme('includes = ["x"]', "[[scheme]]", 'name = "x"', 'includes = ["daily"]'),
        'scheme "x" includes: "x" includes itself through other schemes; break the cycle',
    ),
    "after itself": (
        a_scheme('operations = ["prices"]', 'after = "daily"'),
        'a.toml:6: scheme "daily" after: a scheme cannot run after itself; name another scheme',
    ),
    "after nothing": (a_scheme('after = "nothing"'), 'after: unknown scheme "nothing"; use one of'),
    "a cron line": (
        a_schedule('cron = "61 * * * *"'),
        "a.toml:9: schedule \"every day\" cron: '61 * * * *' is not a valid cron line",
    ),
    "a day that never comes": (a_schedule('cron = "0 0 30 2 *"'), 'schedule "every day" cron:'),
    "a time zone": (
        a_schedule('cron = "0 3 * * *"', 'timezone = "Mars"'),
        "a.toml:10: schedule \"every day\" timezone: 'Mars' is not a known time zone; use an",
    ),
    "a schedule of nothing": (
        a_schedule('cron = "0 3 * * *"').replace('scheme = "daily"', 'scheme = "dayly"'),
        'a.toml:8: schedule "every day" scheme: unknown scheme "dayly"; did you mean "daily"?',
    ),
    "a schedule twice": (
        a_schedule('cron = "0 3 * * *"')
        + '\n[[schedule]]\nname = "every day"\nscheme = "daily"\ncron = "0 4 * * *"',
        'a.toml:10: schedule "every day": the scheme has two schedules of this name; rename',
    ),
    "a schedule's argument": (
        a_schedule('cron = "0 3 * * *"', 'arguments = { yer = "1" }'),
        'a.toml:10: schedule "every day" arguments.yer: unknown argument "yer"; did you mean',
    ),
    "a schedule's template": (
        a_schedule('cron = "0 3 * * *"', 'arguments = { year = "{year}" }'),
        'arguments.year: unknown placeholder "{year}"; use one of: due_at',
    ),
}


@pytest.mark.parametrize("sort", MISTAKES)
def test_mistake_names_location_and_remedy(tmp_path: Path, sort: str) -> None:
    text, expected = MISTAKES[sort]
    mistakes = checked(tmp_path, text).mistakes
    assert any(expected in mistake for mistake in mistakes), "\n".join(mistakes)
    assert all(mistake.startswith("providers/a.toml:") for mistake in mistakes)
    assert all("\n" not in mistake and ";" in mistake for mistake in mistakes)


def test_all_mistakes_of_a_declaration_are_reported_together(tmp_path: Path) -> None:
    first = HEAD + "x = 1\ny = 2\n"
    second = 'operations = ["a", "b"]'
    found = checked(tmp_path, first, a_scheme(second).replace("acme", "other"))
    assert [mistake.split(":")[0] for mistake in found.mistakes] == [
        "providers/a.toml",
        "providers/a.toml",
        "providers/b.toml",
        "providers/b.toml",
    ]


def with_secrets(text: str, *names: str, provider: str = "acme") -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return text.replace('name = "acme"', f'name = "{provider}"\nsecrets = [{listed}]')


def test_secrets_are_spider_arguments_and_have_no_declared_value(tmp_path: Path) -> None:
    text = with_secrets(
        an_operation('arguments = { year = "1973" }', "[[schedule]]", 'name = "daily"')
        + '\nscheme = "daily"\ncron = "0 6 * * *"\narguments = { year = "1974" }\n',
        *("year", "yaer"),
    )
    message = (
        "is a secret and must come from the environment variable CATLOG_SECRET_ACME_YEAR; remove it"
    )
    assert checked(tmp_path, text).mistakes == [
        f"providers/a.toml:9: {OPERATION} arguments.year: {message}",
        'providers/a.toml:3: provider secrets: no spider of the provider has an argument "yaer";'
        ' did you mean "year"? (spider arguments are the spider\'s public attributes)',
        f'providers/a.toml:14: schedule "daily" arguments.year: {message}',
    ]


@pytest.mark.parametrize("name", ["base_url", "api-key", "Key", ""])
def test_secret_names_are_valid_argument_names(tmp_path: Path, name: str) -> None:
    [mistake] = checked(tmp_path, with_secrets(an_operation(), name)).mistakes
    assert f'"{name}" is not a valid secret name; use spider arguments' in mistake


def test_two_providers_cannot_share_a_secret_variable(tmp_path: Path) -> None:
    files = [
        with_secrets(an_operation(), "page_size", provider=provider) for provider in ("a-b", "a_b")
    ]
    assert checked(tmp_path, *files).mistakes == [
        'providers/b.toml:3: provider secrets: "page_size" is read from'
        " CATLOG_SECRET_A_B_PAGE_SIZE, which is already the variable of"
        ' "page_size" of the provider "a-b"; rename one of the secrets'
    ]


def test_provider_has_one_file(tmp_path: Path) -> None:
    found = checked(tmp_path, HEAD, HEAD)
    assert found.mistakes == [
        'providers/b.toml:2: provider name: the provider "acme" is also declared in'
        " providers/a.toml; keep one of the files"
    ]


def test_several_operations_of_a_provider_write_one_kind(tmp_path: Path) -> None:
    declared = checked(tmp_path, two_cities('fields.n = "bigint"', 'fields.n = "bigint"'))
    assert declared.mistakes == []
    [scheme] = declared.providers[0].schemes
    msk, spb = scheme.operations
    assert msk.kinds == spb.kinds


def test_several_spiders_of_a_provider_share_a_record_type(tmp_path: Path) -> None:
    assert checked(tmp_path, a_scheme('operations = ["prices", "both"]')).mistakes == []


def test_providers_that_share_a_kind_define_it_equally(tmp_path: Path) -> None:
    mine = a_scheme('operations = ["prices"]')
    other = an_operation('executor = "external"', 'kind = "prices"', 'key = "id"')
    alike = mine.replace("acme", "alike")
    found = checked(tmp_path, mine, alike, other.replace("acme", "other"))
    assert found.mistakes == [
        'providers/c.toml:6: scheme "daily" operation "prices": the kind "prices" differs from the'
        " kind of this name that acme/daily/prices writes; share one record type, or give one of"
        " them another view"
    ]


def test_project_view_cannot_have_the_name_of_a_kind(tmp_path: Path) -> None:
    text = a_scheme('operations = ["prices"]')
    found = checked(tmp_path, text, views=("prices_history", "others"))
    assert found.mistakes == [
        'providers/a.toml:5: scheme "daily" operation "prices": the kind "prices" makes the view'
        ' "prices_history", and so does the project\'s file prices_history.sql; rename one of the'
        " views"
    ]


def test_provider_files_are_utf_8_with_or_without_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'[provider]\nname = "\xff"')
    (tmp_path / "b.toml").write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    declared, mistakes = read_providers(tmp_path)
    assert [mistake.split(": ", 1)[1] for mistake in mistakes] == [
        "the file is not UTF-8; save it as UTF-8"
    ]
    assert [found.file.provider.name for found in declared] == ["acme"]


def test_missing_provider_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="correct CATLOG_PROVIDERS"):
        read_providers(tmp_path / "nowhere")


def test_valid_file_becomes_definitions(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        """
        [provider]
        name = "acme"
        title = "Acme"
        base_url = "https://acme.example/shop"
        max_running = 3

        [[scheme]]
        name = "links"
        operations = ["links"]

        [[scheme]]
        name = "prices"
        version = 4
        max_errors = 9
        after = "links"

        [[scheme.operation]]
        name = "of_each_link"
        spider = "prices"
        for_each = "links"
        arguments = { year = "{year:04d}-{due_at:%m}-{extra[0]}-{part}", base_url = "{id}" }
        standalone_arguments = ["page_size", "base_url"]
        mode = "incremental"
        isolate = true
        tolerate = { rejected = 0.01, failed_requests = 3 }
        min_results = 0
        timeout = "1.5m"
        stall_timeout = "20s"
        backoff = { base = "1s" }
        keep = "90d"

        [[scheme.operation]]
        name = "outside"
        executor = "external"
        kind = "things"
        key = ["shop", "id"]
        fields = { id = "bigint", price = "numeric" }

        [[scheme]]
        name = "all"
        includes = ["links", "prices"]

        [[schedule]]
        name = "каждый день"
        scheme = "all"
        cron = "0 3 * * *"
        timezone = "Europe/Moscow"
        arguments = { year = "{due_at:%Y}" }
        """,
    )
    assert found.mistakes == []
    [provider] = found.providers
    assert (provider.title, provider.max_running) == ("Acme", 3)
    links, prices, every = provider.schemes
    assert links.operations[0].kinds == (
        KindDefinition(
            "links", ("id", "year"), (("id", "text"), ("year", "bigint"), ("extra", "jsonb"))
        ),
    )
    assert (prices.version, prices.max_errors, prices.after) == (4, 9, "links")
    of_each, outside = prices.operations
    assert (of_each.spider, of_each.for_each, of_each.mode) == ("prices", "links", "incremental")
    assert of_each.standalone_arguments == ["base_url", "page_size"]
    assert of_each.tolerate == {"rejected": 0.01, "failed_requests": 3}
    assert type(of_each.tolerate["failed_requests"]) is int
    assert (of_each.timeout, of_each.keep) == (90.0, 90 * 86400.0)
    assert (of_each.start_timeout, of_each.stall_timeout) == (120.0, 20.0)
    assert (of_each.backoff_base, of_each.backoff_cap) == (1.0, 600.0)
    fields = (("shop", "text"), ("id", "bigint"), ("price", "numeric"))
    assert outside.kinds == (KindDefinition("things", ("shop", "id"), fields, foreign=True),)
    assert every.includes == ("links", "prices")
    [schedule] = provider.schedules
    assert (schedule.name, schedule.catch_up, schedule.enabled) == ("каждый день", "latest", True)


class Paged:
    """Mixin with a spider argument."""

    page: int = 1


class Crawled(Paged, CrawlSpider):
    name = "crawled"
    allowed_domains: ClassVar = ["acme.example"]
    rules = ()
    selector: ClassVar[str] = "a"
    counted: "ClassVar[int]"
    shop = "acme"
    _hidden = 1

    def __init__(self, *args: Any, city: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    @property
    def told(self) -> str:
        return ""

    @classmethod
    def made(cls) -> None: ...


class Further(Crawled):
    name = "further"
    selector = "b"
    counted = 2


def test_spider_arguments_are_attributes_and_constructor_parameters() -> None:
    assert spider_arguments(Further) == spider_arguments(Crawled)
    assert spider_arguments(Crawled) == {"base_url", "page", "shop", "city"}
    assert spider_arguments(Links) == {"base_url", "year", "page_size"}
    assert spider_arguments(Foreign) == {"base_url"}


def test_record_types_come_from_the_spider_or_from_declared_kinds() -> None:
    kind = {"name": "things", "key": ["id"], "fields": [{"name": "id", "type": "bigint"}]}
    assert operation_record_types(Both, []) == (Price, Link)
    [made] = operation_record_types(Foreign, [kind])
    assert operation_record_types(None, [kind])[0].sql_fields() == made.sql_fields()
    assert (made.kind, made.key_fields) == ("things", ("id",))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("Report", b"SELECT 1", '"Report" is not a valid view name; rename the file'),
        ("a", b"-- nothing;\n;", "the file has no statement; write a SELECT, or remove the file"),
        ("a", b"SELECT foo$a$; CREATE TABLE t(); SELECT b$a$", "a.sql:1: the file has a second"),
        ("a", b"SELECT /* /* */ ; */ 1;\nDROP TABLE t", "a.sql:2: the file has a second"),
        ("a", b"SELECT 'a\\';\nDROP TABLE t --'", "a.sql:2: the file has a second"),
        ("a", b"SELECT 1;\n-- and\nSELECT 2;", "a.sql:3: the file has a second statement"),
        ("a", b"SELECT '\xff'", "the file is not UTF-8; save it as UTF-8"),
    ],
)
def test_view_file_holds_one_select(tmp_path: Path, name: str, text: bytes, expected: str) -> None:
    (tmp_path / f"{name}.sql").write_bytes(text)
    views, [mistake] = read_views(tmp_path)
    assert expected in mistake
    assert not views


def test_semicolons_in_strings_and_comments_do_not_end_a_select(tmp_path: Path) -> None:
    select = """SELECT ';' AS a, E'\\';' AS ";", $$;$$ AS b, $x$ $$; $x$ AS c -- ;\n/* ; */ , 1"""
    (tmp_path / "a.sql").write_text(select + " ; -- the end;\n")
    assert read_views(tmp_path) == ({"a": select}, [])


def test_unreadable_provider_file_is_reported_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.toml").mkdir()
    (tmp_path / ".#b.toml").symlink_to("nowhere")
    (tmp_path / "c.sql").mkdir()
    _, [mistake] = read_providers(tmp_path)
    assert "a.toml: the file cannot be read (Is a directory); correct this" in mistake
    _, [mistake] = read_views(tmp_path)
    assert "c.sql: the file cannot be read" in mistake


class OfAnyScrapy(OfOldScrapy):
    async def start(self) -> Any:
        for request in self.start_requests():
            yield request


class OfOldScrapyAgain(OfAnyScrapy):
    def start_requests(self) -> Any:
        return super().start_requests()


class OfOldCrawlSpider(CrawlSpider):
    def start_requests(self) -> Any:
        yield Request("http://shop.example/prices")


@pytest.mark.parametrize(
    ("spidercls", "expected"),
    [
        (Prices, False),
        (OfOldScrapy, True),
        (OfAnyScrapy, False),
        (OfOldScrapyAgain, True),
        (OfOldCrawlSpider, True),
    ],
)
def test_spider_whose_requests_scrapy_ignores_is_found(
    spidercls: type[Spider], expected: bool
) -> None:
    assert has_only_start_requests(spidercls) == expected


@pytest.mark.parametrize("tolerance", ["1.0", "0.0", "1", "0", "5"])
@pytest.mark.parametrize("name", ["removed", "rejected", "dropped", "failed_requests"])
def test_tolerance_from_nothing_to_everything_is_accepted(
    tmp_path: Path, name: str, tolerance: str
) -> None:
    found = checked(tmp_path, an_operation(f"tolerate.{name} = {tolerance}"))
    assert found.mistakes == []
    [operation] = found.providers[0].schemes[0].operations
    assert repr(operation.tolerate) == f"{{'{name}': {tolerance}}}"


def test_order_of_tags_has_no_meaning(tmp_path: Path) -> None:
    found = checked(tmp_path, an_operation('tags = ["ru", "browser"]'))
    [operation] = found.providers[0].schemes[0].operations
    assert operation.tags == ["browser", "ru"]


def declared_kinds(*tables: str) -> str:
    """Build a file whose operation of the spider `foreign` declares *tables* as its kinds."""
    operation = '[[scheme]]\nname = "x"\n[[scheme.operation]]\nname = "foreign"\n'
    kinds = "".join(f"[[scheme.operation.kinds]]\n{table}\n" for table in tables)
    return f"{HEAD}\n{operation}{kinds}"


BOOKS = 'kind = "books"\nkey = "isbn"\nfields = { isbn = "text" }\n'
FILMS = 'kind = "films"\nkey = "id"\nfields = { id = "uuid" }\n'


def test_kinds_of_one_operation_have_rules_for_their_items(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        declared_kinds(
            BOOKS + 'when = { type = "book", sold = true }\nempty_is_null = true',
            FILMS + 'item = "Film"\nuntracked = ["seen", "Any name"]',
            'kind = "rest"\nkey = "id"\nfields = { id = "bigint", at = "unix_milliseconds" }',
        ),
    )
    assert found.mistakes == found.notes == []
    [operation] = found.providers[0].schemes[0].operations
    books, films, rest = operation.kinds
    assert books.rules == {"when": {"type": ["book"], "sold": [True]}, "empty_is_null": True}
    assert (films.rules, films.untracked) == ({"item": "Film"}, ("seen", "Any name"))
    assert films.fields == (("id", "uuid"),)
    assert rest.rules == {"types": {"at": "unix_milliseconds"}}
    assert dict(rest.fields) == {"id": "bigint", "at": "timestamptz"}
    assert all(kind.foreign for kind in operation.kinds)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            declared_kinds(BOOKS, BOOKS.replace("books", "films")),
            'the kinds "books" and "films" take the same items; tell them apart by when',
        ),
        (
            declared_kinds(BOOKS + 'item = "A"', FILMS + 'item = "A"'),
            'the kinds "books" and "films" take the same items',
        ),
        (declared_kinds(BOOKS + "when = { type = [] }"), "[] is not a valid value of type"),
        (declared_kinds(BOOKS + "when = { type = { a = 1 } }"), "is not a valid value of type"),
        (declared_kinds(BOOKS + 'wen = { type = "a" }'), 'did you mean "when"?'),
        (declared_kinds('key = "isbn"'), 'the field "kind" is missing'),
        (declared_kinds(BOOKS + 'untracked = ["isbn"]'), "'isbn' is a field of the key"),
        (
            declared_kinds(BOOKS).replace('name = "foreign"', 'name = "foreign"\nkey = "id"'),
            "kinds declares all kinds; remove key, or kinds",
        ),
        (
            declared_kinds(BOOKS).replace('name = "foreign"', 'name = "prices"'),
            'the spider "prices" has its own record type; remove kinds',
        ),
        (declared_kinds('kind = "pg_class"\nkey = "id"'), "'pg_class' begins with 'pg_'"),
        (declared_kinds('kind = "default"\nkey = "id"'), "'default' is a reserved word of SQL"),
        (declared_kinds('kind = "books"\nkey = "_id"'), "'_id' begins with an underscore"),
        (
            declared_kinds(BOOKS.replace("{ ", '{ model_config = "text", ')),
            "the name 'model_config' is reserved by pydantic",
        ),
        (
            declared_kinds(BOOKS.replace('"text"', '"datetime"')),
            "'datetime' is not a valid type of isbn; use one of text, bigint",
        ),
        (
            declared_kinds(
                BOOKS.replace("{ ", "{ " + ", ".join(f'f{n} = "text"' for n in range(1700)) + ", ")
            ),
            "Books has 1701 fields; a table has room for 1500",
        ),
    ],
)
def test_mistake_in_declared_kinds_is_named(tmp_path: Path, text: str, mistake: str) -> None:
    found = checked(tmp_path, text).mistakes
    assert mistake in found[0]
    assert "Traceback" not in found[0]


def test_key_field_without_a_type_has_a_note(tmp_path: Path) -> None:
    table = 'kind = "books"\nkey = ["shop", "isbn"]\nfields = { isbn = "text" }'
    found = checked(tmp_path, declared_kinds(table))
    assert found.mistakes == []
    [note] = found.notes
    assert note.startswith("providers/a.toml:")
    assert 'the type of the key field "shop" is not declared, so it is text' in note


@pytest.mark.parametrize("stem", ["pg_class", "default", "user"])
def test_view_with_a_reserved_name_is_refused(tmp_path: Path, stem: str) -> None:
    (tmp_path / f"{stem}.sql").write_text("SELECT 1 AS one")
    views, [mistake] = read_views(tmp_path)
    assert views == {}
    assert mistake.endswith("; rename the file")


def test_kinds_of_one_name_need_the_same_untracked_fields(tmp_path: Path) -> None:
    files = [
        declared_kinds(BOOKS + extra).replace("acme", name)
        for name, extra in (("acme", 'untracked = ["seen"]'), ("emca", ""))
    ]
    [mistake] = checked(tmp_path, *files).mistakes
    assert 'the kind "books" differs from the kind of this name' in mistake
