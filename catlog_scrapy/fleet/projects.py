"""Which projects a node has, in which versions, and a warm parent for each."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as NotYet
from configparser import ConfigParser
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from scrapy.utils.conf import closest_scrapy_cfg
from scrapyd.config import Config
from scrapyd.utils import initialize_component
from twisted.internet.threads import blockingCallFromThread

from catlog_scrapy.declarations.offer import Offer
from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.fleet.parents import ProjectFailed, WarmParent
from catlog_scrapy.store.claims import Claim

T = TypeVar("T")

# Seconds that importing a project may take, and until one that failed, or was killed at it, is
# tried again.
PATIENCE = 60.0
AGAIN_AFTER = 30.0
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
        self.starts = 0
        self.begun: dict[Code, float] = {}
        self.codes: dict[tuple[str, str | None], Code] = {}

    def refresh(self) -> None:
        """A version was added or deleted: look again."""
        self.codes.clear()

    def names(self) -> list[str]:
        """The projects that this node's scrapyd knows, by its names."""
        return list(dict.fromkeys([*self.eggs.list_projects(), *self._modules()]))

    def _modules(self) -> dict[str, str]:
        return dict(self.config.items("settings", default=[]))

    def code(self, project: str, version: str | None = None) -> Code:
        """The code of a *version* of *project*, the newest without one. Raises NotFound."""
        if version is None:
            version = next(reversed(self.eggs.list(project)), None)
        if (project, version) not in self.codes:
            self.codes[project, version] = self._code(project, version)
        return self.codes[project, version]

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
        if parent is None or self._is_to_start_again(code, parent):
            parent = _in_reactor(lambda: self._start(code))
        return parent

    def _start(self, code: Code) -> WarmParent:
        former = self.parents.get(code)
        if former is not None and former.is_alive:
            former.retire()
            self.retired = [parent for parent in [*self.retired, former] if parent.is_alive]
        self.begun[code] = time.monotonic()
        self.starts += 1
        self.parents[code] = WarmParent(self._environment(code), cold=self.cold)
        return self.parents[code]

    def all_parents(self) -> list[WarmParent]:
        """Those that are there, or were."""
        return [*self.parents.values(), *self.retired]

    def _is_to_start_again(self, code: Code, parent: WarmParent) -> bool:
        if parent.is_alive:
            return parent.is_stale()
        wait = AGAIN_AFTER if parent.has_failed else AGAIN_AFTER_KILLED
        return time.monotonic() - self.begun[code] > wait

    def is_importing(self) -> bool:
        """Whether a warm parent is not there yet: a lease would run while it is waited for."""
        now = time.monotonic()
        return any(
            not parent.offered.done() and now - self.begun[code] < PATIENCE
            for code, parent in self.parents.items()
        )

    def _environment(self, code: Code) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [code.folder, os.environ.get("PYTHONPATH")]))
        return {
            **os.environ,
            **self.environment,
            "PYTHONPATH": path,
            "SCRAPY_SETTINGS_MODULE": code.settings,
        }

    def shown(self) -> list[str]:
        """The same for people: what lies here is called as in the database."""
        known = self.known()
        here = set(self._modules()) - set(self.eggs.list_projects())
        return list(dict.fromkeys(known.get(p, p) if p in here else p for p in self.names()))

    def offer(self, project: str, version: str | None = None) -> Offer:
        """What a project, by whichever name, can run. Raises NotFound or ProjectFailed."""
        if project not in self.names():
            project = next((p for p, name in self.known().items() if name == project), project)
        try:
            return self.parent(self.code(project, version)).offered.result(PATIENCE)
        except NotYet as error:
            raise ProjectFailed(f"importing it takes more than {PATIENCE:g} s") from error

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
            return self.offer(project).project
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
                return {"version": code.version, "error": "starting"}
            return {"version": code.version, "project": offered.result().project}
        except Exception as error:  # an egg may be anything
            return {"error": f"{type(error).__name__}: {error}"}

    def find(self, claim: Claim) -> WarmParent | str:
        """Who can run what was claimed; or why nobody here can, in words.

        Raises ProjectFailed where a project that cannot be imported, or not yet, may be the one.
        """
        refusals, failures = [], []
        for project in self.names():
            try:
                code = self.code(project, claim.project_version)
                parent = self.parent(code)
                refusal = parent.offered.result(PATIENCE).refusal(claim)
            except NotFound as error:
                refusals.append(str(error))
                continue
            except (ProjectFailed, NotYet) as error:
                failures.append(f"project {project!r}: {error or 'importing it takes long'}")
                continue
            if refusal is None:
                return parent
            refusals.append(refusal)
        if failures:
            raise ProjectFailed("; ".join(failures))
        return "; ".join(dict.fromkeys(refusals)) or "this node has no project"


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
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            if not place.exists():  # another node of this home was first
                raise
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
