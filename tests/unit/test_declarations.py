"""Provider files: each sort of mistake is told with its file, line, place and remedy."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from scrapy import Request, Spider
from scrapy.spiders import CrawlSpider

from catlog_scrapy.declarations.checking import CheckedProviders, check
from catlog_scrapy.declarations.reading import read_providers, read_views
from catlog_scrapy.declarations.spiders import operation_record_types, spider_arguments
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


class Version(Record, key="id", view="version"):
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


class Loader:
    """The spiders of a project."""

    spiders: ClassVar[dict[str, type[Spider]]] = {
        spider.name: spider
        for spider in (
            Prices,
            Links,
            Both,
            Foreign,
            Feed,
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
    """What catlog makes of provider files `a.toml`, `b.toml`, ..."""
    providers = folder / "providers"
    providers.mkdir()
    for name, text in zip("abc", files, strict=False):
        (providers / f"{name}.toml").write_text(text, encoding="utf-8")
    declared, mistakes = read_providers(providers)
    found = check(declared, Loader(), views)
    found.mistakes[:0] = mistakes
    return found


def an_operation(*lines: str) -> str:
    """A file whose lines from 8 on are *lines*, in an operation of the spider `prices`."""
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


def a_scheme(*lines: str) -> str:
    """A file whose lines from 5 on are *lines*, in a scheme `daily`."""
    return "\n".join([*HEAD.splitlines(), "[[scheme]]", 'name = "daily"', *lines])


def a_schedule(*lines: str) -> str:
    """A file whose lines from 9 on are *lines*, in a schedule."""
    schedule = ["[[schedule]]", 'name = "every day"', 'scheme = "daily"', *lines]
    return a_scheme('operations = ["prices"]', *schedule)


OPERATION = 'scheme "daily" operation "prices"'
MISTAKES = {
    # What is no TOML, or no table of ours.
    "syntax": ("[provider\n", "providers/a.toml: line 1 column 10: Expected ']' at the end"),
    "syntax at the end": (HEAD + "x = [1,", "providers/a.toml: end of the file: Invalid value"),
    "no provider": ("", "providers/a.toml: the table [provider] is missing; add it"),
    "no name": ("[provider]\n", 'a.toml:1: provider: "name" is missing; add it'),
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
    "a table for a field": (HEAD + "[provider.title]\n", "provider title: is {}; write text in"),
    "a field for a table": (HEAD + "[scheme]\n", "a.toml:3: scheme: is {}; write a list"),
    "no scheme name": (HEAD + "[[scheme]]\n", 'a.toml:3: scheme 1: "name" is missing'),
    # Values of the wrong sort.
    "a slash in a name": (HEAD.replace("acme", "a/b"), 'name: is "a/b"; use letters, digits'),
    "a number as text": (HEAD + 'max_running = "2"', 'is "2"; write a whole number'),
    "a share of a worker": (HEAD + "max_running = 1.5", "is 1.5; write a whole number"),
    "true for a number": (HEAD + "max_running = true", "is true; write a whole number"),
    "no worker": (HEAD + "max_running = 0", "is 0; write a whole number above 0"),
    "a base URL without host": (HEAD + 'base_url = "acme"', 'is "acme"; write a whole URL'),
    "version 0": (a_scheme("version = 0"), "version: is 0; write a whole number above 0"),
    "a duration": (
        an_operation("timeout = 30"),
        f'a.toml:8: {OPERATION} timeout: is 30; write a duration such as "30s", "10m"',
    ),
    "no duration": (an_operation('keep = "0d"'), 'keep: is "0d"; write a duration'),
    "a share of 1": (
        an_operation("tolerate = { removed = 1.0 }"),
        "tolerate.removed: is 1.0; write a count such as 10, or a share below 1",
    ),
    "less than nothing": (an_operation("tolerate.dropped = -1"), "tolerate.dropped: is -1; write"),
    "tolerating true": (an_operation("tolerate.dropped = true"), "is true; write a count"),
    "a cap below its base": (
        an_operation('backoff = { base = "1h", cap = "1m" }'),
        "backoff: has a cap below its base; write a longer cap",
    ),
    "a mode": (an_operation('mode = "full"'), "is \"full\"; write 'snapshot' or 'incremental'"),
    "min_results": (an_operation("min_results = -1"), "is -1; write a whole number from 0 on"),
    "a word for a flag": (an_operation('isolate = "yes"'), 'is "yes"; write true or false'),
    "a number as an argument": (
        an_operation("arguments = { year = 2026 }"),
        f"a.toml:8: {OPERATION} arguments.year: is 2026; write text in quotes",
    ),
    "no words": (an_operation("for_each = []"), "for_each: is []; write a kind's name, or"),
    "a word twice": (an_operation('for_each = ["a", "a"]'), "for_each: has a word twice"),
    "the former name of standalone_arguments": (
        an_operation('alone = ["year"]'),
        f'a.toml:8: {OPERATION} alone: "alone" is now "standalone_arguments"; rename it',
    ),
    "the former name of failed_requests": (
        an_operation("tolerate = { given_up = 1 }"),
        'tolerate.given_up: "given_up" is now "failed_requests"; rename it',
    ),
    "the former name of blocked_by_robots": (
        an_operation("tolerate = { ignored = 1 }"),
        'tolerate.ignored: "ignored" is now "blocked_by_robots"; rename it',
    ),
    "alone without parts": (
        an_operation('standalone_arguments = ["year"]'),
        f"a.toml:8: {OPERATION} standalone_arguments: needs for_each; add it, or remove"
        " standalone_arguments",
    ),
    "alone twice": (
        an_operation('standalone_arguments = ["year", "year"]'),
        "standalone_arguments: has a word twice; remove",
    ),
    "alone as one word": (
        an_operation('standalone_arguments = "year"'),
        'standalone_arguments: is "year"; write a list such',
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
        'standalone_arguments: names "year", by which a load chooses parts; name an argument that'
        ' is no field of "links"',
    ),
    "catch_up": (a_schedule('cron = "* * * * *"', 'catch_up = "all"'), "write 'latest' or 'none'"),
    "a schedule without cron": (
        a_schedule(),
        'a.toml:6: schedule "every day": "cron" is missing; add it',
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
        'the placeholder "{part}" needs for_each; add it',
    ),
    "a brace": (an_operation('arguments.year = "{due_at"'), "write {{ and }} for plain braces"),
    "no directive": (
        an_operation('arguments.year = "{due_at:%Q}"'),
        'cannot be filled in ("%Q" is not a directive of strftime); write such as'
        " {due_at:%Y-%m-%d}",
    ),
    "a format without directives": (
        an_operation('arguments.year = "{due_at:YYYY}"'),
        '("YYYY" contains no % directive)',
    ),
    "an attribute": (
        an_operation('arguments.year = "{due_at.fold:c}"'),
        "(due_at takes only a format); write such as {due_at:%Y-%m-%d}",
    ),
    "a conversion": (an_operation('arguments.year = "{due_at!r}"'), "takes only a format"),
    "a placeholder in a placeholder": (
        an_operation('arguments.year = "{due_at:%Y{due_at.fold:c}}"'),
        "(a placeholder contains a placeholder)",
    ),
    "a width of its own": (
        an_operation('for_each = ["a"]', 'arguments.year = "{part:>300000000}"'),
        '(the width in ">300000000" is too large); write such as {part}',
    ),
    "a format of a field": (
        a_scheme(
            'operations = ["links"]',
            "[[scheme.operation]]",
            'name = "prices"',
            'for_each = "links"',
            'arguments = { year = "{year:%Y}" }',
        ),
        "cannot be filled in (Invalid format specifier",
    ),
    "unknown kind": (
        an_operation('for_each = "prces"'),
        f'a.toml:8: {OPERATION} for_each: no operation of this provider writes "prces";'
        ' did you mean "prices"?',
    ),
    # What need not be read again.
    "an overlap of a snapshot": (
        an_operation('overlap = "10m"'),
        f'a.toml:8: {OPERATION} overlap: is for cursors; write mode = "incremental"',
    ),
    "an overlap without a cursor": (
        an_operation('mode = "incremental"', 'overlap = "10m"'),
        'overlap: is for cursors; give the spider "prices" a `cursor = ""`',
    ),
    "a refresh without a field": (
        an_operation('spider = "feed"', 'refresh = { every = "7d" }'),
        'refresh: "by" is missing; add it',
    ),
    "a refresh by an unknown field": (
        an_operation('spider = "feed"', 'refresh = { every = "7d", by = "ammount" }'),
        'refresh.by: unknown field "ammount"; did you mean "amount"?',
    ),
    "a refresh of several record types": (
        an_operation('spider = "both"', 'refresh = { every = "7d", by = "id" }'),
        'refresh: is for one record type; "both" yields 2: remove it',
    ),
    "a refresh that nobody asks for": (
        an_operation('refresh = { every = "7d", by = "id" }'),
        'refresh: needs a spider that asks for it; give "prices" a `fresh = {}`',
    ),
    # Kinds.
    "no record type": (
        a_scheme('operations = ["foreign"]'),
        'operation "foreign": does not say what "foreign" yields; give the spider a `record`',
    ),
    "a kind too many": (
        an_operation('kind = "x"', 'key = "id"'),
        'declares a kind, but the spider "prices" has its own record type; remove kind, key',
    ),
    "external without a kind": (
        an_operation('executor = "external"'),
        "does not say what its executor sends; write kind, key",
    ),
    "external with a spider": (
        an_operation('executor = "external"', 'kind = "x"', 'key = "id"', 'spider = "feed"'),
        "spider: is for spiders, not for an external executor; remove it",
    ),
    "external with what spiders lack": (
        an_operation('executor = "external"', 'kind = "x"', 'key = "id"', 'stall_timeout = "9s"'),
        "stall_timeout: is for spiders, not for an external executor; remove it",
    ),
    "external that gives requests up": (
        an_operation(
            'executor = "external"', 'kind = "x"', 'key = "id"', "tolerate.failed_requests = 3"
        ),
        "tolerate.failed_requests: is for spiders: an external executor says itself that it has"
        " failed",
    ),
    "an unknown type": (
        an_operation('executor = "external"', 'kind = "x"', 'key = "id"', 'fields.n = "int"'),
        "'int' is not a valid type of n; use one of text, bigint",
    ),
    "a kind that is no SQL name": (
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
    "one kind, two writers": (
        a_scheme('operations = ["prices", "both"]'),
        'a.toml:5: scheme "daily" operation "both": writes "prices" as daily/prices does;',
    ),
    "a history as a kind": (
        a_scheme('operations = ["links", "history"]'),
        'the kind "links" has its history in the view "links_history", which is a kind of'
        " acme/daily/history; rename one of them",
    ),
    "a long name": (a_scheme('operations = ["long"]'), "a name of 56 letters, and 55 is the limit"),
    "a taken name": (a_scheme('operations = ["version"]'), "has a name that catlog needs itself"),
    "no record type in record": (
        a_scheme('operations = ["wrong"]'),
        'has a spider "wrong" whose `record` is no record type; derive it from',
    ),
    # Schemes and schedules among each other.
    "a scheme twice": (
        a_scheme('operations = ["prices"]', "[[scheme]]", 'name = "daily"', "version = 2"),
        'a.toml:6: scheme "daily": is here twice; keep its newest version',
    ),
    "an operation twice": (a_scheme('operations = ["links", "links"]'), "is in this scheme twice"),
    "neither": (a_scheme(), 'a.toml:3: scheme "daily": has neither operations nor includes; name'),
    "both": (
        a_scheme('operations = ["prices"]', 'includes = ["daily"]'),
        'scheme "daily": has operations and includes; move its operations',
    ),
    "unknown include": (
        a_scheme('includes = ["dayly"]'),
        'a.toml:5: scheme "daily" includes: unknown scheme "dayly"; did you mean "daily"?',
    ),
    "an include twice": (
        a_scheme('includes = ["x", "x"]', "[[scheme]]", 'name = "x"', 'operations = ["prices"]'),
        'scheme "daily" includes: has "x" twice; remove one of them',
    ),
    "a circle": (
        a_scheme('includes = ["x"]', "[[scheme]]", 'name = "x"', 'includes = ["daily"]'),
        'scheme "x" includes: leads back to itself; break the circle',
    ),
    "after itself": (
        a_scheme('operations = ["prices"]', 'after = "daily"'),
        'a.toml:6: scheme "daily" after: names itself; name another scheme',
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
        'a.toml:10: schedule "every day": is here twice; give one of them another name',
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
def test_a_mistake_is_told_with_its_place_and_remedy(tmp_path: Path, sort: str) -> None:
    text, told = MISTAKES[sort]
    mistakes = checked(tmp_path, text).mistakes
    assert any(told in mistake for mistake in mistakes), "\n".join(mistakes)
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


def test_a_secret_is_an_argument_of_a_spider_and_comes_from_nowhere_else(tmp_path: Path) -> None:
    text = with_secrets(
        an_operation('arguments = { year = "1973" }', "[[schedule]]", 'name = "daily"')
        + '\nscheme = "daily"\ncron = "0 6 * * *"\narguments = { year = "1974" }\n',
        *("year", "yaer"),
    )
    told = (
        "is a secret and must come from the environment variable CATLOG_SECRET_ACME_YEAR; remove it"
    )
    assert checked(tmp_path, text).mistakes == [
        f"providers/a.toml:9: {OPERATION} arguments.year: {told}",
        'providers/a.toml:3: provider secrets: no spider of the provider has an argument "yaer";'
        ' did you mean "year"? (a spider names its arguments as attributes)',
        f'providers/a.toml:14: schedule "daily" arguments.year: {told}',
    ]


@pytest.mark.parametrize("name", ["base_url", "api-key", "Key", ""])
def test_a_secret_has_the_name_of_an_argument(tmp_path: Path, name: str) -> None:
    [mistake] = checked(tmp_path, with_secrets(an_operation(), name)).mistakes
    assert f'has "{name}"; write the names of spider arguments' in mistake


def test_a_variable_is_the_secret_of_one_provider(tmp_path: Path) -> None:
    files = [
        with_secrets(an_operation(), "page_size", provider=provider) for provider in ("a-b", "a_b")
    ]
    assert checked(tmp_path, *files).mistakes == [
        'providers/b.toml:3: provider secrets: has "page_size", whose variable'
        " CATLOG_SECRET_A_B_PAGE_SIZE is a-b's page_size; rename one of them"
    ]


def test_a_provider_has_one_file(tmp_path: Path) -> None:
    found = checked(tmp_path, HEAD, HEAD)
    assert found.mistakes == [
        'providers/b.toml:2: provider name: provider "acme" is also in providers/a.toml;'
        " keep one of them"
    ]


def test_providers_share_a_kind_only_if_they_define_it_alike(tmp_path: Path) -> None:
    mine = a_scheme('operations = ["prices"]')
    other = an_operation('executor = "external"', 'kind = "prices"', 'key = "id"')
    alike = mine.replace("acme", "alike")
    found = checked(tmp_path, mine, alike, other.replace("acme", "other"))
    assert found.mistakes == [
        'providers/c.toml:6: scheme "daily" operation "prices": defines the kind "prices"'
        " differently from acme/daily/prices; share one record type, or give one of them another"
        " view"
    ]


def test_a_view_of_the_project_is_no_view_of_a_kind(tmp_path: Path) -> None:
    text = a_scheme('operations = ["prices"]')
    found = checked(tmp_path, text, views=("prices_history", "others"))
    assert found.mistakes == [
        'providers/a.toml:5: scheme "daily" operation "prices": the kind "prices" makes the view'
        ' "prices_history", but there is a file prices_history.sql among the views; rename one of'
        " them"
    ]


def test_a_file_must_be_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'[provider]\nname = "\xff"')
    (tmp_path / "b.toml").write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    declared, mistakes = read_providers(tmp_path)
    assert [mistake.split(": ", 1)[1] for mistake in mistakes] == [
        "it is not UTF-8; save it as UTF-8"
    ]
    assert [found.file.provider.name for found in declared] == ["acme"]


def test_a_missing_folder_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="set CATLOG_PROVIDERS"):
        read_providers(tmp_path / "nowhere")


def test_a_good_file_says_it_all(tmp_path: Path) -> None:
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
    """A mixin."""

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


def test_a_spider_names_its_arguments() -> None:
    assert spider_arguments(Further) == spider_arguments(Crawled)
    assert spider_arguments(Crawled) == {"base_url", "page", "shop", "city"}
    assert spider_arguments(Links) == {"base_url", "year", "page_size"}
    assert spider_arguments(Foreign) == {"base_url"}


def test_record_types_are_the_spiders_or_made_from_the_declared() -> None:
    kind = {"name": "things", "key": ["id"], "fields": [{"name": "id", "type": "bigint"}]}
    assert operation_record_types(Both, []) == (Price, Link)
    [made] = operation_record_types(Foreign, [kind])
    assert operation_record_types(None, [kind])[0].sql_fields() == made.sql_fields()
    assert (made.kind, made.key_fields) == ("things", ("id",))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("Report", b"SELECT 1", '"Report" is no plain SQL name; rename the file'),
        ("a", b"-- nothing;\n;", "it has no SELECT; write one, or remove the file"),
        ("a", b"SELECT 1;\n-- and\nSELECT 2;", "a.sql:3: it has more than one statement"),
        ("a", b"SELECT '\xff'", "it is not UTF-8; save it as UTF-8"),
    ],
)
def test_a_view_is_one_select(tmp_path: Path, name: str, text: bytes, told: str) -> None:
    (tmp_path / f"{name}.sql").write_bytes(text)
    views, [mistake] = read_views(tmp_path)
    assert told in mistake
    assert not views


def test_a_semicolon_in_a_select_is_no_end(tmp_path: Path) -> None:
    select = """SELECT ';' AS a, E'\\';' AS ";", $$;$$ AS b, $x$ $$; $x$ AS c -- ;\n/* ; */ , 1"""
    (tmp_path / "a.sql").write_text(select + " ; -- the end;\n")
    assert read_views(tmp_path) == ({"a": select}, [])


def test_unreadable_provider_file_is_reported_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.toml").mkdir()
    (tmp_path / ".#b.toml").symlink_to("nowhere")
    (tmp_path / "c.sql").mkdir()
    _, [mistake] = read_providers(tmp_path)
    assert "a.toml: it cannot be read (Is a directory); mend that" in mistake
    _, [mistake] = read_views(tmp_path)
    assert "c.sql: it cannot be read" in mistake
