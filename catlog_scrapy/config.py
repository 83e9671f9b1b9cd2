"""Every setting of catlog: name, type, default, unit and description.

The add-on fills in the defaults and the environment from here, commands check the values, and the
reference of settings is generated from this list.
"""

import json
import math
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scrapy.settings import BaseSettings
from scrapy.utils.conf import closest_scrapy_cfg

from catlog_scrapy.exceptions import ConfigurationError

PREFIX = "CATLOG_"
# Above the project's settings (20) and a spider's (30), below the command line's (40).
ENVIRONMENT_PRIORITY = 35
TAG = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Setting:
    """A setting, which a project's settings module or an environment variable may set."""

    name: str
    type: type
    default: Any
    description: str
    unit: str = ""
    # Words for a default that is computed, or for the absence of a value.
    default_text: str = ""
    may_be_zero: bool = False
    # Passed between processes of catlog; nobody else sets it.
    is_internal: bool = False

    def check(self, value: Any) -> None:
        """Raise ConfigurationError unless *value* is a number that the setting allows.

        Texts and lists are checked where they are used.
        """
        if self.type not in (int, float):
            return
        try:
            number = self.type(value)
        except (TypeError, ValueError, OverflowError):
            number = -1
        if not (number > 0 or (self.may_be_zero and number == 0)) or number == math.inf:
            noun = "a whole number" if self.type is int else "a number"
            bound = "from 0 on" if self.may_be_zero else "above 0"
            raise ConfigurationError(
                f"{self.name} is {value!r}; use {noun} {bound}, such as {int(self.default)}"
            )


@dataclass(frozen=True)
class VariablePattern:
    """A family of environment variables, named after a provider."""

    prefix: str
    placeholders: str
    description: str
    is_secret: bool = False


SETTINGS = (
    Setting(
        "CATLOG_DATABASE_URL",
        str,
        None,
        "PostgreSQL that holds catlog's tables, as postgresql://user:password@host:5432/database",
        default_text="the embedded PostgreSQL",
    ),
    Setting(
        "CATLOG_HOME",
        str,
        None,
        "folder for the embedded database, the logs, kept images and files",
        default_text="`.catlog` beside `scrapy.cfg`",
    ),
    Setting(
        "CATLOG_EMBEDDED_LINGER",
        float,
        300.0,
        "time that the embedded PostgreSQL stays after its last user, if that has a terminal",
        unit="seconds",
        may_be_zero=True,
    ),
    Setting(
        "CATLOG_PROVIDERS",
        str,
        None,
        "folder of the declarations, one TOML file for each provider",
        default_text="`providers/` in the project's package",
    ),
    Setting(
        "CATLOG_VIEWS",
        str,
        None,
        "folder of further views, one SELECT in each file",
        default_text="`views/` in the project's package",
    ),
    Setting(
        "CATLOG_RESOURCES",
        str,
        None,
        "file that declares the resources of the HTTP API",
        default_text="`resources.toml` in the project's package",
    ),
    Setting(
        "CATLOG_PROJECT",
        str,
        None,
        "name of the project in the database; declarations of other projects are left alone",
        default_text="`BOT_NAME`",
    ),
    Setting(
        "CATLOG_NODE",
        str,
        None,
        "name of this machine in claims and attempts; a node of the fleet adds its port",
        default_text="the host name",
    ),
    Setting(
        "CATLOG_TAGS",
        list,
        [],
        "tags of this worker or node, separated by commas; only a worker with all tags of an"
        " operation takes the operation",
        default_text="no tags",
    ),
    Setting("CATLOG_CONCURRENCY", int, 4, "number of crawls at the same time in one process"),
    Setting(
        "CATLOG_LEASE",
        float,
        60.0,
        "time after which the instances of a silent worker are queued again",
        unit="seconds",
    ),
    Setting(
        "CATLOG_POLL",
        float,
        1.0,
        "pause between two looks at an empty queue",
        unit="seconds",
    ),
    Setting(
        "CATLOG_GRACE",
        float,
        10.0,
        "time that crawls may go on after the first SIGINT or SIGTERM",
        unit="seconds",
        may_be_zero=True,
    ),
    Setting(
        "CATLOG_RETRY_AFTER",
        float,
        60.0,
        "longest pause that a crawl makes for a `Retry-After` header; a longer one ends the"
        " attempt, and the next attempt begins after that pause",
        unit="seconds",
        may_be_zero=True,
    ),
    Setting(
        "CATLOG_RESULTS_KEEP",
        float,
        30 * 86400.0,
        "age after which the results and rejected items of an operation without `keep` are deleted",
        unit="seconds",
        may_be_zero=True,
    ),
    Setting(
        "CATLOG_CATALOGS_KEEP",
        float,
        90 * 86400.0,
        "age after which ended catalogs are deleted, with their instances and attempts; the newest"
        " ones of each scheme and a summary stay",
        unit="seconds",
        may_be_zero=True,
    ),
    Setting(
        "CATLOG_LOG_KEEP",
        float,
        30 * 86400.0,
        "age after which `scrapy prune` deletes logs of attempts",
        unit="seconds",
        may_be_zero=True,
    ),
    Setting(
        "CATLOG_LOG_SIZE",
        int,
        2**30,
        "total size of this machine's logs; `scrapy prune` deletes the oldest logs beyond it",
        unit="bytes",
        may_be_zero=True,
    ),
    Setting(
        "CATLOG_MEDIA_URL",
        str,
        None,
        "first part of the links to kept images and files",
        default_text="the path in the store",
    ),
    Setting(
        "CATLOG_MEDIA_TIMEOUT",
        float,
        30.0,
        "longest download of an image or a file",
        unit="seconds",
    ),
    Setting("CATLOG_API_HOST", str, "127.0.0.1", "address that `scrapy serve` listens on"),
    Setting(
        "CATLOG_API_PORT",
        int,
        8000,
        "port that `scrapy serve` listens on; 0 takes a free port",
        may_be_zero=True,
    ),
    Setting(
        "CATLOG_API_CORS",
        list,
        [],
        "origins whose web pages may call the API, separated by commas",
        default_text="no origins",
    ),
    Setting(
        "CATLOG_API_PROXIES",
        list,
        [],
        "addresses of proxies whose `X-Forwarded-For` and `X-Forwarded-Prefix` are trusted,"
        " separated by commas",
        default_text="no proxies",
    ),
    Setting(
        "CATLOG_API_PREFIX",
        str,
        None,
        "path under which a proxy publishes the server, such as `/catlog`; links begin with it",
        default_text="`X-Forwarded-Prefix` of a trusted proxy",
    ),
    Setting("CATLOG_API_BODY", int, 2**20, "largest request body", unit="bytes"),
    Setting("CATLOG_API_BATCH", int, 16 * 2**20, "largest batch of results", unit="bytes"),
    Setting("CATLOG_API_PAGE", int, 1000, "largest page", unit="rows"),
    Setting(
        "CATLOG_API_LARGE",
        int,
        100_000,
        "records of a kind from which a page without an index for its filters or order has a"
        " warning",
        unit="rows",
    ),
    Setting(
        "CATLOG_API_TIMEOUT",
        float,
        10.0,
        "longest time for a request to arrive, and for its query",
        unit="seconds",
    ),
    Setting("CATLOG_API_ACCESS", float, 300.0, "life of an access token", unit="seconds"),
    Setting("CATLOG_API_REFRESH", float, 14 * 86400.0, "life of a refresh token", unit="seconds"),
    Setting(
        "CATLOG_REPLACED",
        bool,
        False,
        "whether this process replaces a process in which a crawl hung",
        is_internal=True,
    ),
    Setting(
        "CATLOG_RESUME",
        str,
        None,
        "catalog that this process resumes for the process that it replaces",
        is_internal=True,
    ),
    Setting(
        "CATLOG_ATTEMPT",
        str,
        None,
        "claimed attempt that this process runs",
        is_internal=True,
    ),
)

PATTERNS = (
    VariablePattern(
        "CATLOG_BASE_URL_",
        "<PROVIDER>",
        "overrides the provider's `base_url`; the provider's name in upper case, `_` for `-`",
    ),
    VariablePattern(
        "CATLOG_SECRET_",
        "<PROVIDER>_<NAME>",
        "secret of a provider's spiders; both names in upper case, `_` for `-`; environment only",
        is_secret=True,
    ),
)

# Settings of the command line, `-s NAME=VALUE`, as JSON: a command passes them to the processes
# that it starts. Their priority is just below that of the command line (40).
OVERRIDES = "CATLOG_OVERRIDES"
OVERRIDES_PRIORITY = 39

# Variables that are not settings: of clients of the API, of compose.yaml, of the browser's process.
OTHER_VARIABLES = frozenset(
    {
        "CATLOG_API",
        "CATLOG_KEY",
        "CATLOG_PASSWORD",
        "CATLOG_BROWSER",
        "CATLOG_BROWSER_PYTHON",
        OVERRIDES,
    }
)

SETTING_PREFIXES = tuple(pattern.prefix for pattern in PATTERNS if not pattern.is_secret)
DEFAULTS = {setting.name: setting.default for setting in SETTINGS}

# Settings whose default is a place in the project's package.
PLACES = {
    "CATLOG_PROVIDERS": "providers",
    "CATLOG_VIEWS": "views",
    "CATLOG_RESOURCES": "resources.toml",
}


def fill_in(settings: BaseSettings, environment: Mapping[str, str] = os.environ) -> None:
    """Set defaults, values of the environment and computed defaults in *settings*.

    The environment also overrides CATLOG_ settings of the project's own. Secrets stay out: Scrapy
    copies, logs and shows settings.
    """
    for name, default in DEFAULTS.items():
        if name not in settings:
            settings.set(name, default, priority="default")
    for name, value in environment.items():
        is_own = name.startswith(PREFIX) and name in settings and not _is_known(name)
        if name in DEFAULTS or name.startswith(SETTING_PREFIXES) or is_own:
            settings.set(name, value, priority=ENVIRONMENT_PRIORITY)
    for name, value in json.loads(environment.get(OVERRIDES) or "{}").items():
        # An option of the process itself, such as --logfile, counts more.
        if (settings.getpriority(name) or 0) < OVERRIDES_PRIORITY:
            settings.set(name, value, priority=OVERRIDES_PRIORITY)
    root = Path(closest_scrapy_cfg() or "scrapy.cfg").absolute().parent
    home = root / (settings["CATLOG_HOME"] or ".catlog")
    settings.set("CATLOG_HOME", str(home), priority=settings.getpriority("CATLOG_HOME") or 0)
    for name, place in PLACES.items():
        if settings[name] is None:
            settings.set(name, str(project_package(settings, root) / place), "default")
    if settings["CATLOG_NODE"] is None:
        settings.set("CATLOG_NODE", socket.gethostname(), "default")


def pass_on(overrides: Mapping[str, str]) -> None:
    """Pass settings of the command line to the processes that this process starts."""
    if overrides:
        former = json.loads(os.environ.get(OVERRIDES) or "{}")
        os.environ[OVERRIDES] = json.dumps({**former, **overrides})


def check(settings: BaseSettings) -> None:
    """Raise ConfigurationError for the first setting whose value is not allowed."""
    for setting in SETTINGS:
        setting.check(settings[setting.name])


def worker_tags(settings: BaseSettings) -> list[str]:
    """Return CATLOG_TAGS, sorted. Raises ConfigurationError."""
    tags = {tag.strip() for tag in settings.getlist("CATLOG_TAGS")} - {""}
    for tag in sorted(tags):
        if not TAG.fullmatch(tag):
            raise ConfigurationError(
                f'CATLOG_TAGS has {tag!r}, which is not a valid tag; use letters, digits, "_" and'
                ' "-", and separate tags by commas'
            )
    return sorted(tags)


def unknown_names(settings: BaseSettings, environment: Iterable[str] = os.environ) -> list[str]:
    """Return a line for each CATLOG_ name that is not a setting: a typing mistake, probably.

    Not an error: a platform may add variables of its own, as Kubernetes does for a service that is
    named catlog. A name in both *settings* and *environment* is a setting of the project's own.
    """
    names = {name for name in set(settings) ^ set(environment) if name.startswith(PREFIX)}
    known = [setting.name.removeprefix(PREFIX) for setting in SETTINGS if not setting.is_internal]
    lines = []
    for name in sorted(name for name in names if not _is_known(name)):
        close = get_close_matches(name.removeprefix(PREFIX), known, n=1)
        remedy = f"did you mean {PREFIX}{close[0]}?" if close else "correct the name, or unset it"
        lines.append(f"{name} is not a setting of catlog; {remedy}")
    return lines


def project_package(settings: BaseSettings, root: Path) -> Path:
    """Return the folder of the project's own package, in which its first spider module lies."""
    modules = settings.getlist("SPIDER_MODULES")
    spec = find_spec(modules[0].partition(".")[0]) if modules else None
    if spec is None or not spec.submodule_search_locations:
        return root
    return Path(next(iter(spec.submodule_search_locations)))


def _is_known(name: str) -> bool:
    prefixes = tuple(pattern.prefix for pattern in PATTERNS)
    return name in DEFAULTS or name in OTHER_VARIABLES or name.startswith(prefixes)
