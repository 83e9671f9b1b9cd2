"""Which projects a node has, in which versions, and a warm parent for each."""

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

from catlog_scrapy.declarations.capabilities import Offer
from catlog_scrapy.exceptions import CatlogError, NotFound
from catlog_scrapy.fleet.zygotes import ProjectFailed, WarmParent
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.sql import clean

T = TypeVar("T")

# Seconds that importing a project may take; that a question on the web waits for it; and that a
# node which has just started claims nothing for its sake.
PATIENCE = 60.0
WEB_PATIENCE = 20.0
STARTS_WITHIN = 10.0
# Seconds until a project that failed to be imported, or was killed at it, is tried again.
AGAIN_AFTER = 10.0
AGAIN_AFTER_KILLED = 3.0


@dataclass(frozen=True)
class Code:
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
        self.parents: dict[Code, WarmParent] = {}
        self.retired: list[WarmParent] = []
        self.codes: dict[tuple[str, str | None], Code | ProjectFailed] = {}
        self.last_names: dict[str, str] = {}
        self.last_errors: dict[str, str] = {}

    def refresh(self) -> None:
        """A version was added or deleted: look again, and let go what nobody needs."""
        self.codes.clear()
        if self.parents:
            current = {code for code in map(self._current, self.names()) if code}
            _in_reactor(lambda: self._retire_all_but(current))

    def _current(self, project: str) -> Code | None:
        try:
            return self.code(project)
        except CatlogError:
            return None

    def _retire_all_but(self, current: set[Code]) -> None:
        for code in set(self.parents) - current:
            self._retire(self.parents.pop(code))

    def _retire(self, parent: WarmParent) -> None:
        parent.retire()
        self.retired = [former for former in [*self.retired, parent] if former.is_alive]

    def names(self) -> list[str]:
        """The projects that this node's scrapyd knows, by its names."""
        return list(dict.fromkeys([*self.eggs.list_projects(), *self._modules()]))

    def _modules(self) -> dict[str, str]:
        return dict(self.config.items("settings", default=[]))

    def code(self, project: str, version: str | None = None) -> Code:
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

    def _code(self, project: str, version: str | None) -> Code:
        found, egg = self.eggs.get(project, version)
        if egg is not None:
            with egg:
                folder = unpack(egg.read(), self.home / "eggs")
            return Code(settings_of(folder), str(folder), found)
        if version is not None:
            raise NotFound(f"version '{version}' of project '{project}' not found")
        if project not in self._modules():
            raise NotFound(f"project '{project}' not found")
        root = Path(closest_scrapy_cfg() or "scrapy.cfg").absolute().parent
        return Code(self._modules()[project], str(root), None)

    def parent(self, code: Code) -> WarmParent:
        """The warm parent for *code*, which may still be importing it."""
        parent = self.parents.get(code)
        if parent is None or _is_to_start_again(parent):
            parent = _in_reactor(lambda: self._start(code, instead_of=parent))
        return parent

    def _start(self, code: Code, instead_of: WarmParent | None) -> WarmParent:
        from twisted.internet import reactor

        former = self.parents.get(code)
        if former is not None and former is not instead_of:
            return former  # another thread was first
        if former is not None and former.is_alive:
            self._retire(former)
        parent = WarmParent(self._environment(code), cold=self.cold)
        cast(Any, reactor).callLater(PATIENCE, parent.kill_if_importing)
        self.parents[code] = parent
        return parent

    def offering(self) -> frozenset[WarmParent]:
        """Changes whenever there is something new to run."""
        return frozenset(p for p in list(self.parents.values()) if p.has_offered())

    def all_parents(self) -> list[WarmParent]:
        """Those that are there, or were."""
        return [*self.parents.values(), *self.retired]

    def is_importing(self) -> bool:
        """Whether a project may be there in a moment: until then nothing is refused for it."""
        return any(
            not parent.offered.done() and parent.age() < STARTS_WITHIN
            for parent in list(self.parents.values())
        )

    def _environment(self, code: Code) -> dict[str, str]:
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

    def offer(
        self, project: str, version: str | None = None, *, patience: float = WEB_PATIENCE
    ) -> Offer:
        """What a project, by whichever name, can run. Raises NotFound or ProjectFailed."""
        if project not in self.names():
            project = next((p for p, name in self.known().items() if name == project), project)
        try:
            offer = self.parent(self.code(project, version)).offered.result(patience)
        except NotYet as error:
            raise ProjectFailed(f"importing it takes more than {patience:g} s") from error
        self.last_names[project] = offer.project
        return offer

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
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode:
            raise ProjectFailed(done.stderr.strip()[-2000:])
        return done.stdout.splitlines()

    def name_in_database(self, project: str) -> str:
        """What *project* is called there; that name itself will do as well. Raises NotFound."""
        if project in self.names():
            try:
                return self.offer(project).project
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
                found[project] = self.offer(project).project
            except (NotFound, ProjectFailed):
                continue
        return found

    def status(self) -> dict[str, dict[str, Any]]:
        """What there is of each project, without waiting: version, and why it cannot be run."""
        return {project: self._status(project) for project in self.names()}

    def _status(self, project: str) -> dict[str, Any]:
        try:
            code = self.code(project)
            offered = self.parent(code).offered
            if not offered.done():
                return {"version": code.version, "error": self.last_errors.get(project, "starting")}
            self.last_errors.pop(project, None)
            return {"version": code.version, "project": offered.result().project}
        except Exception as error:  # whatever it is, people are to see it
            self.last_errors[project] = clean(str(error) or type(error).__name__)
            return {"error": self.last_errors[project]}

    def find(self, claim: Claim) -> WarmParent | str:
        """Who can run what was claimed; or why nobody here can, in words.

        Raises ProjectFailed where a project that cannot be imported, or not yet, may be the one.
        """
        refusals, failures = [], []
        for project in self.names():
            try:
                code = self.code(project, claim.project_version)
                # Whether it is stale, the poll has just looked. Nobody waits here: leases run.
                parent = self.parents.get(code) or self.parent(code)
                refusal = parent.offered.result(0).refusal(claim)
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
                return parent
            refusals.append(refusal)
        if failures:
            raise ProjectFailed("; ".join(failures))
        return "; ".join(dict.fromkeys(refusals)) or "this node has no project"


def _is_to_start_again(parent: WarmParent) -> bool:
    if parent.is_stale():
        return True
    wait = AGAIN_AFTER if parent.has_failed else AGAIN_AFTER_KILLED
    return not parent.is_alive and parent.age() > wait


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
