"""Named faults of a fleet: each catalog loads once or names the fault, no process is left."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil
import pytest
from sqlalchemy import make_url

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.migrations import upgrade
from tests.support.fleet import Database, Fleet, ProxyAt, fill, small_disk, things
from tests.support.postgres import TEMPLATE, Postgres
from tests.support.proxy import Proxy
from tests.support.source import Source
from tests.support.waiting import WAIT_LIMIT_S, rows, until

pytestmark = pytest.mark.slow

PARTS = list("abcdefgh")
DONE = things(PARTS)
# The user nobody: the kernel counts the processes of a user.
SOMEBODY = 54_321

GivenAFleet = Callable[..., Fleet]


AS_ROOT = pytest.mark.usefixtures("root")


@pytest.fixture
def root() -> None:
    assert os.geteuid() == 0, "only root can mount a small disk or make a network; be root"


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with Source() as source:
        yield source


@pytest.fixture(scope="module")
def applied(
    postgres: Postgres, source: Source, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return the name of a database with the project applied, which tests clone to save time."""
    with postgres.clone() as url:
        engine = make_engine(url)
        Fleet(tmp_path_factory.mktemp("applied"), engine, url, source, parts=PARTS).apply()
        engine.dispose()
        yield str(make_url(url).database)


@pytest.fixture
def given_a_fleet(
    tmp_path: Path, postgres: Postgres, applied: str, source: Source
) -> Iterator[GivenAFleet]:
    """Return a function that makes a fleet without nodes; end its processes after the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Fleet:
            declares = options.keys() & {"parts", "provider", "operation"}
            url = stack.enter_context(postgres.clone(TEMPLATE if declares else applied))
            engine = make_engine(url)
            stack.callback(engine.dispose)
            fleet = Fleet(tmp_path, engine, url, source, **{"parts": PARTS, **options})
            stack.enter_context(fleet)
            return fleet.apply() if declares else fleet

        yield make


def is_gone(process: psutil.Process) -> bool:
    """Return whether a process has ended, reaped or not."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def post(url: str, **values: str) -> str:
    """Return the reply of a service of scrapyd's API."""
    with urlopen(url, urlencode(values).encode(), timeout=WAIT_LIMIT_S) as answer:
        return str(answer.read().decode())


def test_node_killed_with_four_spiders_ends_them_and_resumes_at_its_restart(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="600")
    node = fleet.node()
    hold = fleet.hold()
    fleet.load(hold=str(hold))
    until(lambda: fleet.running() == 4, what=fleet.report)
    spiders = node.spiders()
    assert len(spiders) == 4
    node.kill()
    until(lambda: all(map(is_gone, spiders)))
    hold.touch()
    node.start()
    fleet.ready(node)
    # Long before the lease ends.
    until(lambda: fleet.outcomes().count("lost") == 4, what=fleet.report)
    assert set(fleet.errors()) == {f"lost: its node {node.name} went down"}
    fleet.is_sound(DONE)


def test_attempts_of_a_killed_node_go_to_another_node_after_the_lease(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="8")
    killed, other = fleet.node("killed", ready=False), fleet.node("other", ready=False)
    fleet.ready(killed, other)
    hold = fleet.hold()
    fleet.load(hold=str(hold))
    until(lambda: fleet.running(killed) == fleet.running(other) == 4, what=fleet.report)
    killed.kill()
    hold.touch()
    fleet.is_sound(DONE)
    assert fleet.errors() == [f"lost: its worker on {killed.name} vanished"] * 4


def test_killed_spider_is_lost_before_its_lease_ends(given_a_fleet: GivenAFleet) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="600")
    node = fleet.node()
    hold = fleet.hold()
    fleet.load(hold=str(hold))
    until(lambda: fleet.running() == 4, what=fleet.report)
    node.spiders()[0].kill()
    until(fleet.outcomes)
    assert fleet.errors() == ["lost: the process was killed by SIGKILL"]
    hold.touch()
    fleet.is_sound(DONE)
    assert fleet.outcomes().count("lost") == 1


def test_spider_that_ends_its_own_process_fails(given_a_fleet: GivenAFleet) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="600")
    fleet.node()
    for trouble in ("exits", "segfaults"):
        fleet.load(part="a", trouble=trouble)
    fleet.is_sound(things(["a"]))
    assert sorted(fleet.errors()) == [
        "failed: the process ended with exit status 3 before the spider was closed",
        "failed: the process was killed by SIGSEGV",
    ]
    failures = "SELECT errors FROM catlog.catalog ORDER BY created_at LIMIT 2"
    assert rows(fleet.engine, failures) == [(1,), (1,)]


def test_killed_zygote_ends_its_spiders_and_is_replaced(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="600")
    node = fleet.node()
    hold = fleet.hold()
    fleet.load(hold=str(hold))
    until(lambda: fleet.running() == 4, what=fleet.report)
    [parent], spiders = node.parents(), node.spiders()
    parent.kill()
    until(lambda: all(map(is_gone, spiders)))
    until(lambda: fleet.outcomes().count("lost") == 4, what=fleet.report)
    lost = "lost: the process was killed by SIGKILL"
    assert fleet.errors().count(lost) == 4
    # Claims made before the zygote's end was known.
    gone = "released: the process did not start: the zygote process has ended"
    assert set(fleet.errors()) <= {lost, gone}
    hold.touch()
    fleet.is_sound(DONE)


def test_failed_fork_releases_its_claims_and_pauses_the_node(given_a_fleet: GivenAFleet) -> None:
    fleet = given_a_fleet()
    somebody: list[str] = []
    if os.geteuid() == 0:  # root may always fork, but need not be able to, to read all files
        somebody = ["setpriv", f"--reuid={SOMEBODY}", "--clear-groups"]
        somebody += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    node = fleet.node("poor", wrapper=somebody)
    [parent] = node.parents()

    def may_have(processes: int) -> None:
        limit = ["prlimit", f"--pid={parent.pid}", f"--nproc={processes}:"]
        subprocess.run([*somebody, *limit], check=True)

    may_have(1)
    fleet.load()
    not_started = "the process did not start: fork failed"
    until(lambda: not_started in fleet.node_error(node), what=fleet.report)
    may_have(resource.getrlimit(resource.RLIMIT_NPROC)[1])
    fleet.is_sound(DONE)
    assert set(fleet.errors()) == {
        "released: the process did not start: fork failed: Resource temporarily unavailable"
    }
    # A pausing node claims nothing, so it does not fail in a hot loop.
    assert len(fleet.errors()) <= 12
    assert rows(fleet.engine, "SELECT max(errors) FROM catlog.catalog") == [(0,)]


def test_zygote_killed_during_its_import_counts_no_error(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="600")
    slow = fleet.project.folder / "shop/settings.py"
    slow.write_text(slow.read_text() + "\nimport time\n\ntime.sleep(2)\n")
    fleet.load()
    node = fleet.node(ready=False)
    until(node.parents)
    time.sleep(1)
    for parent in node.parents():
        parent.kill()
    # Long before the lease ends.
    fleet.ends()
    fleet.is_sound(DONE)
    assert {error.partition(":")[0] for error in fleet.errors()} <= {"released"}
    assert rows(fleet.engine, "SELECT max(errors) FROM catlog.catalog") == [(0,)]


def test_crawls_survive_a_database_killed_for_ten_seconds(tmp_path: Path, source: Source) -> None:
    with Database(tmp_path / "database") as database, ExitStack() as stack:
        engine = make_engine(database.url)
        stack.callback(engine.dispose)
        upgrade(engine)
        options = {"CATLOG_LEASE": "120", "parts": ["a", "b", "c", "d"]}
        fleet = Fleet(tmp_path, engine, database.url, source, **options)  # type: ignore[arg-type]
        stack.enter_context(fleet)
        fleet.apply()
        node = fleet.node()
        # Two end while it is away, two go on.
        hold = fleet.hold()
        fleet.load(part="a")
        fleet.load(part="b")
        fleet.load(part="c", hold=str(hold))
        fleet.load(part="d", hold=str(hold))
        until(lambda: fleet.running() == 4, what=fleet.report)
        spiders = node.spiders()
        database.kill()
        time.sleep(10)
        assert node.is_running
        assert not any(map(is_gone, spiders))
        database.start()
        hold.touch()
        fleet.is_sound(things(["a", "b", "c", "d"]))
        assert set(fleet.outcomes()) == {"done"}


@AS_ROOT
@pytest.mark.parametrize("disk_is_full", [False, True])
def test_unreachable_database_at_the_start_of_spiders_counts_no_error(
    given_a_fleet: GivenAFleet, disk_is_full: bool
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="600")
    with Proxy(fleet.database_url) as proxy, ExitStack() as stack:
        node = fleet.node(CATLOG_DATABASE_URL=proxy.url)
        if disk_is_full:  # of logs: nor can they say what they met
            fill(stack.enter_context(small_disk(fleet.project.folder / "home-one/logs", 64)))
        [parent] = node.parents()
        parent.suspend()
        fleet.load()
        held = "SELECT count(*) FROM catlog.catalog_scheme_operation_instance WHERE node <> ''"
        until(lambda: rows(fleet.engine, held) == [(4,)], what=fleet.report)
        proxy.cut()
        parent.resume()
        time.sleep(2)
        proxy.thaw()
        fleet.is_sound(DONE)
        assert not [error for error in fleet.errors() if error.startswith("failed")]
        assert rows(fleet.engine, "SELECT max(errors) FROM catlog.catalog") == [(0,)]
        node.kill()


SCHEDULER = """
import os
import random
import signal
import sys
import threading
import time

from scrapy.settings import Settings
from sqlalchemy import event, text

from catlog_scrapy.addon import CatlogAddon
from catlog_scrapy.console import make_console
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.worker.scheduler import schedule_once

settings = Settings()
CatlogAddon.update_pre_crawler_settings(settings)
chance = random.Random(7)


def is_due(number):
    engine = make_engine(settings["CATLOG_DATABASE_URL"])
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE catlog.schedule SET next_due_at = clock_timestamp() WHERE name = :name"),
            {"name": f"extra {number}"},
        )
    engine.dispose()


def schedule(dies_before, seconds):
    engine = make_engine(settings["CATLOG_DATABASE_URL"])
    done = 0

    def step(*_):
        nonlocal done
        done += 1
        if done == dies_before:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "commit"):
        event.listen(engine, name, step)
    if seconds:
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
    while True:
        schedule_once(engine, settings, make_console())
        if not seconds:
            os._exit(0)


killed, number, at_step = 0, 0, 0
while True:
    # First before every single statement, then at any moment.
    at_step += 1
    number += 1
    if number > int(sys.argv[1]):
        break
    is_due(number)
    pid = os.fork()
    if pid == 0:
        schedule(at_step if killed == number - 1 else 0, 0)
    _, status = os.waitpid(pid, 0)
    killed += os.WIFSIGNALED(status)
for _ in range(30):
    number = chance.randrange(1, int(sys.argv[1]) + 1)
    pid = os.fork()
    if pid == 0:
        schedule(0, chance.random() / 10)
    _, status = os.waitpid(pid, 0)
print(killed)
"""


def test_scheduler_killed_between_any_statements_makes_one_catalog_per_due_time(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet()
    schedules = 60
    rows(
        fleet.engine,
        """INSERT INTO catlog.schedule (provider_id, scheme_name, name, cron, next_due_at,
               arguments)
           SELECT provider_id, scheme_name, 'extra ' || n, '0 0 1 1 *', 'infinity',
               '{"pages": "1", "part": "a"}'
           FROM catlog.schedule, generate_series(1, :schedules) AS n RETURNING id""",
        schedules=schedules,
    )
    fleet.project.write("killed.py", SCHEDULER)
    done = subprocess.run(
        [sys.executable, "killed.py", str(schedules)],
        cwd=fleet.project.folder,
        env=fleet.project.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    # Otherwise it was not between all statements.
    assert 10 < int(done.stdout.split()[-1]) < schedules, done.stderr
    # And the real command, at any moment of its life.
    for seconds in (0.8, 1.6):
        scheduler = fleet.start("schedule")
        time.sleep(seconds)
        scheduler.kill()
        scheduler.wait()
    fleet.project.scrapy("schedule", "--once")
    made = """SELECT s.name, count(c.id) FROM catlog.schedule s
              LEFT JOIN catlog.catalog c ON c.schedule_id = s.id
              WHERE s.name LIKE 'extra %' GROUP BY 1 HAVING count(c.id) <> 1"""
    assert rows(fleet.engine, made) == []
    assert "skipped" not in fleet.states()
    fleet.node()
    fleet.is_sound(things(["a"], pages=1))


@AS_ROOT
def test_full_log_disk_fails_no_load(given_a_fleet: GivenAFleet) -> None:
    fleet = given_a_fleet()
    with small_disk(fleet.project.folder / "home-one/logs", 64) as logs:
        node = fleet.node()
        hold = fleet.hold()
        fleet.load(hold=str(hold))
        until(lambda: fleet.running() == 4, what=fleet.report)
        # For four in the midst of their logs, and for four that then begin.
        fill(logs)
        begun = list(logs.glob("*.log"))
        assert len(begun) == 4
        hold.touch()
        fleet.ends()
        # Five pages log ten kilobytes.
        assert all(log.stat().st_size < 10_000 for log in begun)
        fleet.is_sound(DONE)
        assert fleet.errors() == []
        node.kill()


def test_node_clocks_that_are_an_hour_off_do_not_matter(given_a_fleet: GivenAFleet) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="10")
    libraries = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert libraries, "libfaketime is missing; apt-get install faketime"
    nodes = []
    for name, offset in (("fast", "+1h"), ("slow", "-1h")):
        clock = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME": offset,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        nodes.append(fleet.node(name, ready=False, **clock))
    fleet.ready(*nodes)
    hold = fleet.hold()
    fleet.load(hold=str(hold))
    until(lambda: [fleet.running(node) for node in nodes] == [4, 4], what=fleet.report)
    # Longer than a lease.
    time.sleep(12)
    hold.touch()
    fleet.is_sound(DONE)
    assert set(fleet.outcomes()) == {"done"}
    off = """SELECT node FROM catlog.instance_attempt
             WHERE abs(extract(epoch FROM finished_at - clock_timestamp())) > 1800
             UNION SELECT name FROM catlog.node WHERE state <> 'up'
                 OR abs(extract(epoch FROM polled_at - clock_timestamp())) > 1800"""
    assert rows(fleet.engine, off) == []
    fast, slow = (node.said() for node in nodes)
    assert fast[:13] > slow[:13]


def test_attempts_behind_a_silent_network_are_lost_and_repeated(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="8")
    with Proxy(fleet.database_url) as proxy:
        cut = fleet.node("cut", ready=False, CATLOG_DATABASE_URL=proxy.url)
        well = fleet.node("well", ready=False)
        fleet.ready(cut, well)
        hold = fleet.hold()
        fleet.load(hold=str(hold))
        until(lambda: fleet.running(cut) == fleet.running(well) == 4, what=fleet.report)
        proxy.freeze()
        hold.touch()
        # The other one does it all, while this one is still away.
        fleet.ends()
        proxy.thaw()
        fleet.is_sound(DONE)
        assert fleet.errors() == [f"lost: its worker on {cut.name} vanished"] * 4


@contextmanager
def network_of_its_own(source: Source) -> Iterator[tuple[str, str, str]]:
    """Create a network namespace; yield its name, its link, and the URL of *source* in it."""
    # Others may run these tests on this machine as well.
    own = os.getpid()
    space, ours, theirs = f"catlog-{own}", f"ours-{own}", f"theirs-{own}"
    network = f"10.{100 + own // 256 % 100}.{own % 256}"
    address = f"{network}.1"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", space)
    server: ThreadingHTTPServer | None = None
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", space)
        ip("addr", "add", f"{address}/30", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", space, "addr", "add", f"{network}.2/30", "dev", theirs)
        for device in (theirs, "lo"):
            ip("-n", space, "link", "set", device, "up")
        server = ThreadingHTTPServer((address, 0), source.http.RequestHandlerClass)
        server.daemon_threads = True
        server.handle_error = lambda request, client_address: None  # type: ignore
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield space, ours, f"http://{address}:{server.server_port}"
    finally:
        if server:
            server.shutdown()
            server.server_close()
        ip("netns", "del", space)  # the link goes with it


@AS_ROOT
def test_attempts_behind_a_broken_link_are_lost_and_repeated(
    given_a_fleet: GivenAFleet, source: Source
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="8")
    with network_of_its_own(source) as (space, link, url), ExitStack() as stack:
        address = url.rpartition("/")[2].partition(":")[0]
        proxy = stack.enter_context(ProxyAt(fleet.database_url, address))
        cut = fleet.node(
            "cut",
            ready=False,
            wrapper=["ip", "netns", "exec", space],
            CATLOG_DATABASE_URL=proxy.url,
            CATLOG_BASE_URL_MAKER=url,
        )
        well = fleet.node("well", ready=False)
        fleet.ready(cut, well)
        hold = fleet.hold()
        fleet.load(hold=str(hold))
        until(lambda: fleet.running(cut) == fleet.running(well) == 4, what=fleet.report)
        subprocess.run(["ip", "link", "set", link, "down"], check=True)
        hold.touch()
        fleet.ends()
        until(lambda: not cut.spiders(), what="what nobody can renew still runs")
        subprocess.run(["ip", "link", "set", link, "up"], check=True)
        fleet.is_sound(DONE)
        assert fleet.errors() == [f"lost: its worker on {cut.name} vanished"] * 4
        cut.kill()


def test_second_node_of_one_name_refuses_to_start(given_a_fleet: GivenAFleet) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="600")
    first = fleet.node("same")
    hold = fleet.hold()
    fleet.load(hold=str(hold))
    until(lambda: fleet.running(first) == 4, what=fleet.report)
    second = fleet.node("same", port=first.port, ready=False)
    assert second.wait() != 0
    assert f"another node has the name '{first.name}'; use another" in second.said()
    assert "Traceback" not in second.said()
    assert fleet.running(first) == 4
    assert fleet.errors() == []
    first.kill()
    hold.touch()
    second.start()
    # It waits for nothing.
    fleet.ready(second)
    fleet.is_sound(DONE)
    assert set(fleet.errors()) == {f"lost: its node {first.name} went down"}


def test_attempts_that_a_node_cannot_run_are_left_to_a_capable_node(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet()
    unfit = {}
    for name, path, old, new in (
        ("spiderless", "shop/spiders/things.py", 'name = "things"', 'name = "others"'),
        ("outdated", "shop/spiders/things.py", "number: int", "number: int\n    colour: str"),
        ("foreign", "shop/settings.py", 'BOT_NAME = "shop"', 'BOT_NAME = "another"'),
    ):
        project = fleet.make_project(fleet.folder / name, fleet.database_url)
        file = project.folder / path
        file.write_text(file.read_text().replace(old, new))
        unfit[name] = fleet.node(name, ready=False, project=project)
    fleet.ready(*unfit.values())
    fleet.load()
    sentences = {
        "spiderless": "the project 'shop' has no spider 'things' here; deploy the project's",
        "outdated": "the record types of the spider 'things' differ from the applied ones",
        "foreign": "the project here is 'another', not 'shop'",
    }
    for name, node in unfit.items():
        until(
            lambda node=node, name=name: sentences[name] in fleet.node_error(node),
            what=fleet.report,
        )
    for name, node in unfit.items():
        refusal = f"released: refused by node {node.name}: {sentences[name]}"
        refused = [error for error in fleet.errors() if error.startswith(refusal)]
        # One look, then it knows; but a claim may take as many as there are slots.
        assert 1 <= len(refused) <= fleet.slots
    fit = fleet.node("fit")
    fleet.ends()
    ran = "SELECT DISTINCT node FROM catlog.instance_attempt WHERE outcome = 'done'"
    assert rows(fleet.engine, ran) == [(fit.name,)]
    assert rows(fleet.engine, "SELECT max(errors) FROM catlog.catalog") == [(0,)]
    for node in unfit.values():
        node.kill()
    fleet.is_sound(DONE)


def test_a_terminated_node_drains(given_a_fleet: GivenAFleet) -> None:
    fleet = given_a_fleet(CATLOG_GRACE="2", CATLOG_LEASE="600")
    node = fleet.node()
    quick, slow = fleet.hold("quick"), fleet.hold("slow")
    for part, hold in zip("abcd", (quick, quick, slow, slow), strict=True):
        fleet.load(part=part, hold=str(hold))
    until(lambda: fleet.running() == 4, what=fleet.report)
    fleet.load(part="e")
    node.signal(signal.SIGTERM)
    quick.touch()
    assert node.wait() in (0, -signal.SIGTERM)  # twistd ends by the signal it got
    assert sorted(fleet.outcomes()) == ["done", "done", "released", "released"]
    assert {error[:10] for error in fleet.errors()} == {"released: "}
    assert rows(fleet.engine, "SELECT state, running FROM catlog.node") == [("stopped", 0)]
    assert fleet.marked() == []
    slow.touch()
    node.start()
    fleet.ready(node)
    fleet.is_sound(things(["a", "b", "c", "d", "e"]))


def test_cancel_by_command_or_another_node_ends_even_hung_spiders(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="600")
    runs, other = fleet.node("runs"), fleet.node("other", ready=False)
    hold = str(fleet.hold())
    by_command = fleet.load(part="a", hold=hold)
    by_node = fleet.load(part="b", hold=hold)
    deaf = fleet.load(part="c", trouble="blocks")
    until(lambda: fleet.running(runs) == 3, what=fleet.report)
    fleet.ready(other)
    until((fleet.project.folder / "blocks-c").exists)
    assert len(runs.spiders()) == 3
    begun = time.monotonic()
    post(f"{other.url}/cancel.json", project="default", job=deaf)
    post(f"{other.url}/cancel.json", project="default", job=by_node)
    fleet.project.scrapy("cancel", by_command)
    until(lambda: len(runs.spiders()) == 1, what=fleet.report)
    until(lambda: not runs.spiders(), what=fleet.report)
    assert time.monotonic() - begun > 5  # it was asked first
    assert fleet.states() == {"cancelled"}
    until(lambda: fleet.outcomes() == ["cancelled"] * 3, what=fleet.report)
    for catalog in (by_command, by_node, deaf):
        fleet.project.scrapy("retry", catalog)
    Path(hold).touch()
    fleet.is_sound(things(["a", "b", "c"]))


def test_three_nodes_respect_max_running_of_a_provider(
    given_a_fleet: GivenAFleet,
) -> None:
    parts = [f"p{number}" for number in range(40)]
    fleet = given_a_fleet(parts=parts, provider="max_running = 5")
    fleet.ready(*[fleet.node(name, ready=False) for name in ("one", "two", "three")])
    fleet.load(pages="2")
    most = 0

    def is_over() -> bool:
        nonlocal most
        held = "SELECT count(*) FROM catlog.catalog_scheme_operation_instance WHERE node <> ''"
        most = max(most, rows(fleet.engine, held)[0][0])
        return fleet.is_over()

    until(is_over, what=fleet.report)
    assert most == 5
    # And by the times of all attempts, see there.
    fleet.is_sound(things(parts, pages=2))
    assert set(fleet.outcomes()) == {"done"}
