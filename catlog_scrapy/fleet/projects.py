"""Which projects a node has, in which versions, and a zygote for each."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as NotYet
from configparser import ConfigParser
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

from scrapy.utils.conf import closest_scrapy_cfg
from scrapyd.config import Config
from scrapyd.utils import initialize_component
from twisted.internet.threads import blockingCallFromThread

from catlog_scrapy.declarations.capabilities import Capabilities
from catlog_scrapy.exceptions import CatlogError, NotFound
from catlog_scrapy.fleet.zygotes import ProjectFailed, ZygoteProcess
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.sql import clean

T = TypeVar("T")

# Seconds that importing a project may take; that a question on the web waits for it; and that a
# node which has just started claims nothing for its sake.
IMPORT_TIMEOUT_S = 60.0
WEB_TIMEOUT_S = 20.0
STARTUP_TIMEOUT_S = 10.0
# Seconds until a project that failed to be imported, or was killed at it, is tried again.
RETRY_FAILED_IMPORT_AFTER_S = 10.0
RETRY_KILLED_IMPORT_AFTER_S = 3.0


@dataclass(frozen=True)
class ProjectCode:
    """Where a project's code is: a settings module, and the folder to find it in.

    `version` is None for a project that was not deployed, but lies where scrapyd runs.
    """

    settings: str
    folder: str
    version: str | None


class Projects:
    """The projects of a node, by the names that its scrapyd knows them by.

    Its public methods may wait, so they are called in threads.
    """

    def __init__(self, config: Config, home: Path, environment: Mapping[str, str]) -> None:
        self.config = config
        self.home = home
        self.environment = environment
        self.eggs = initialize_component(config, "eggstorage", "")
        self.cold = not config.getboolean("warm", True)
        self.zygotes: dict[ProjectCode, ZygoteProcess] = {}
        self.retired: list[ZygoteProcess] = []
        self.codes: dict[tuple[str, str | None], ProjectCode | ProjectFailed] = {}
        self.last_names: dict[str, str] = {}
        self.last_errors: dict[str, str] = {}

    def refresh(self) -> None:
        """A version was added or deleted: look again, and let go what nobody needs."""
        self.codes.clear()
        if self.zygotes:
            current = {code for code in map(self._current, self.names()) if code}
            _in_reactor(lambda: self._retire_all_but(current))

    def _current(self, project: str) -> ProjectCode | None:
        try:
            return self.code(project)
        except CatlogError:
            return None

    def _retire_all_but(self, current: set[ProjectCode]) -> None:
        for code in set(self.zygotes) - current:
            self._retire(self.zygotes.pop(code))

    def _retire(self, zygote: ZygoteProcess) -> None:
        zygote.retire()
        self.retired = [former for former in [*self.retired, zygote] if former.is_alive]

    def names(self) -> list[str]:
        """The projects that this node's scrapyd knows, by its names."""
        return list(dict.fromkeys([*self.eggs.list_projects(), *self._modules()]))

    def _modules(self) -> dict[str, str]:
        return dict(self.config.items("settings", default=[]))

    def code(self, project: str, version: str | None = None) -> ProjectCode:
        """The code of a *version* of *project*, the newest without one.

        Raises NotFound, or ProjectFailed for an egg that cannot be unpacked.
        """
        if version is None:
            version = next(reversed(self.eggs.list(project)), None)
        if (project, version) not in self.codes:
            try:
                self.codes[project, version] = self._code(project, version)
            except CatlogError:
                raise
            except Exception as error:  # an egg may be anything
                why = f"its egg cannot be used: {type(error).__name__}: {error}"
                self.codes[project, version] = ProjectFailed(why)
        found = self.codes[project, version]
        if isinstance(found, ProjectFailed):
            raise found
        return found

    def _code(self, project: str, version: str | None) -> ProjectCode:
        found, egg = self.eggs.get(project, version)
        if egg is not None:
            with egg:
                folder = unpack(egg.read(), self.home / "eggs")
            return ProjectCode(settings_of(folder), str(folder), found)
        if version is not None:
            raise NotFound(f"version '{version}' of project '{project}' not found")
        if project not in self._modules():
            raise NotFound(f"project '{project}' not found")
        root = Path(closest_scrapy_cfg() or "scrapy.cfg").absolute().parent
        return ProjectCode(self._modules()[project], str(root), None)

    def zygote(self, code: ProjectCode) -> ZygoteProcess:
        """The zygote for *code*, which may still be importing it."""
        zygote = self.zygotes.get(code)
        if zygote is None or _should_restart(zygote):
            zygote = _in_reactor(lambda: self._start(code, instead_of=zygote))
        return zygote

    def _start(self, code: ProjectCode, instead_of: ZygoteProcess | None) -> ZygoteProcess:
        from twisted.internet import reactor

        former = self.zygotes.get(code)
        if former is not None and former is not instead_of:
            return former  # another thread was first
        if former is not None and former.is_alive:
            self._retire(former)
        zygote = ZygoteProcess(self._environment(code), cold=self.cold)
        cast(Any, reactor).callLater(IMPORT_TIMEOUT_S, zygote.kill_if_importing)
        self.zygotes[code] = zygote
        return zygote

    def ready_zygotes(self) -> frozenset[ZygoteProcess]:
        """Changes whenever there is something new to run."""
        return frozenset(p for p in list(self.zygotes.values()) if p.is_ready())

    def all_zygotes(self) -> list[ZygoteProcess]:
        """Those that are there, or were."""
        return [*self.zygotes.values(), *self.retired]

    def is_importing(self) -> bool:
        """Whether a project may be there in a moment: until then nothing is refused for it."""
        return any(
            not zygote.capabilities.done() and zygote.age() < STARTUP_TIMEOUT_S
            for zygote in list(self.zygotes.values())
        )

    def _environment(self, code: ProjectCode) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [code.folder, os.environ.get("PYTHONPATH")]))
        return {
            **os.environ,
            **self.environment,
            "PYTHONPATH": path,
            # Else the folder of the node, a checkout perhaps, came before an egg.
            "PYTHONSAFEPATH": "1",
            "SCRAPY_SETTINGS_MODULE": code.settings,
        }

    def shown(self) -> list[str]:
        """The same for people: what lies here is called as in the database."""
        known = self.known()
        here = set(self._modules()) - set(self.eggs.list_projects())
        return list(dict.fromkeys(known.get(p, p) if p in here else p for p in self.names()))

    def capabilities(
        self, project: str, version: str | None = None, *, timeout_s: float = WEB_TIMEOUT_S
    ) -> Capabilities:
        """What a project, by whichever name, can run. Raises NotFound or ProjectFailed."""
        if project not in self.names():
            project = next((p for p, name in self.known().items() if name == project), project)
        try:
            capabilities = self.zygote(self.code(project, version)).capabilities.result(timeout_s)
        except NotYet as error:
            raise ProjectFailed(f"importing it takes more than {timeout_s:g} s") from error
        self.last_names[project] = capabilities.project
        return capabilities

    def apply(self, project: str, version: str) -> list[str]:
        """Apply the declarations that an egg brings along; the changes, in words.

        Raises ProjectFailed where they are refused; nothing was changed then.
        """
        code = self.code(project, version)
        if not any(Path(code.folder).glob("*/providers/*.toml")):
            return ["nothing: no providers/*.toml in the egg"]
        done = subprocess.run(
            [sys.executable, "-m", "scrapy", "apply"],
            cwd=self.home,
            env=self._environment(code),
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise ProjectFailed(done.stderr.strip()[-2000:])
        return done.stdout.splitlines()

    def name_in_database(self, project: str) -> str:
        """What *project* is called there; that name itself will do as well. Raises NotFound."""
        if project in self.names():
            try:
                return self.capabilities(project).project
            except ProjectFailed:
                if project in self.last_names:
                    return self.last_names[project]
                raise
        if any(project == name for name in self.known().values()):
            return project
        raise NotFound(f"project '{project}' not found")

    def discard(self, project: str, version: str) -> None:
        """Forget a version that is of no use."""
        self.eggs.delete(project, version)
        self.refresh()

    def known(self) -> dict[str, str]:
        """The names in the database of all projects that can be imported."""
        found = {}
        for project in self.names():
            try:
                found[project] = self.capabilities(project).project
            except (NotFound, ProjectFailed):
                continue
        return found

    def status(self) -> dict[str, dict[str, Any]]:
        """What there is of each project, without waiting: version, and why it cannot be run."""
        return {project: self._status(project) for project in self.names()}

    def _status(self, project: str) -> dict[str, Any]:
        try:
            code = self.code(project)
            offered = self.zygote(code).capabilities
            if not offered.done():
                return {"version": code.version, "error": self.last_errors.get(project, "starting")}
            self.last_errors.pop(project, None)
            return {"version": code.version, "project": offered.result().project}
        except Exception as error:  # whatever it is, people are to see it
            self.last_errors[project] = clean(str(error) or type(error).__name__)
            return {"error": self.last_errors[project]}

    def find(self, claim: Claim) -> ZygoteProcess | str:
        """Who can run what was claimed; or why nobody here can, in words.

        Raises ProjectFailed where a project that cannot be imported, or not yet, may be the one.
        """
        refusals, failures = [], []
        for project in self.names():
            try:
                code = self.code(project, claim.project_version)
                # Whether it is stale, the poll has just looked. Nobody waits here: leases run.
                zygote = self.zygotes.get(code) or self.zygote(code)
                refusal = zygote.capabilities.result(0).reason_unsupported(claim)
            except NotFound as error:
                refusals.append(str(error))
                continue
            except NotYet:
                failures.append(f"project {project!r} is being imported")
                continue
            except Exception as error:  # whatever it is, the claim must not hang in the air
                failures.append(f"project {project!r}: {error}")
                continue
            if refusal is None:
                return zygote
            refusals.append(refusal)
        if failures:
            raise ProjectFailed("; ".join(failures))
        return "; ".join(dict.fromkeys(refusals)) or "this node has no project"


def _should_restart(zygote: ZygoteProcess) -> bool:
    if zygote.is_stale():
        return True
    wait = RETRY_FAILED_IMPORT_AFTER_S if zygote.has_failed else RETRY_KILLED_IMPORT_AFTER_S
    return not zygote.is_alive and zygote.age() > wait


def _in_reactor(work: Callable[[], T]) -> T:
    from twisted.internet import reactor

    return blockingCallFromThread(reactor, work)


def unpack(egg: bytes, folder: Path) -> Path:
    """Unpack an egg below *folder*, once: declarations, views and migrations are read as files."""
    place = folder / sha256(egg).hexdigest()[:20]
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder))
        try:
            with tempfile.TemporaryFile() as file:
                file.write(egg)
                with zipfile.ZipFile(file) as archive:
                    archive.extractall(temporary)
            temporary.rename(place)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not isinstance(error, OSError) or not place.exists():
                raise  # else another node of this home was first
    return place


def settings_of(folder: Path) -> str:
    """The settings module of an unpacked egg, from its entry point. Raises ProjectFailed."""
    points = ConfigParser(delimiters=("=",))
    points.read(folder / "EGG-INFO" / "entry_points.txt")
    module = points.get("scrapy", "settings", fallback="")
    if not module:
        raise ProjectFailed(
            "the egg has no entry point `settings` in the group `scrapy`; build it with"
            " scrapyd-deploy"
        )
    return module
