"""Code of a node's projects: deployed eggs, and projects in the folder where scrapyd runs."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from scrapy.utils.conf import closest_scrapy_cfg
from scrapyd.config import Config
from scrapyd.utils import initialize_component

from catlog_scrapy.exceptions import CatlogError, NotFound


class ProjectFailed(CatlogError):
    """A project cannot be imported on this node. Raised by `fleet` with the project's own error."""


@dataclass(frozen=True)
class ProjectCode:
    """A settings module, and the folder to import it from.

    `version` is None for a project that was not deployed, but is in the folder where scrapyd runs.
    """

    settings: str
    folder: str
    version: str | None

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process that runs this code."""
        path = os.pathsep.join(filter(None, [self.folder, os.environ.get("PYTHONPATH")]))
        return {
            **os.environ,
            **extra,
            "PYTHONPATH": path,
            # Otherwise the node's working folder, perhaps a checkout, would come before an egg.
            "PYTHONSAFEPATH": "1",
            "SCRAPY_SETTINGS_MODULE": self.settings,
        }


class CodeStorage:
    """The code of all projects of a node, by scrapyd's names of the projects."""

    def __init__(self, config: Config, home: Path) -> None:
        self.config = config
        self.home = home
        self.eggs = initialize_component(config, "eggstorage", "")
        self._found: dict[tuple[str, str | None], ProjectCode | ProjectFailed] = {}

    def names(self) -> list[str]:
        """Return scrapyd's names of the projects."""
        return list(dict.fromkeys([*self.eggs.list_projects(), *self._modules()]))

    def local_names(self) -> set[str]:
        """Return the names of the projects that were not deployed."""
        return set(self._modules()) - set(self.eggs.list_projects())

    def _modules(self) -> dict[str, str]:
        return dict(self.config.items("settings", default=[]))

    def clear(self) -> None:
        """Forget the code found so far: a version was added or deleted."""
        self._found.clear()

    def delete(self, project: str, version: str) -> None:
        """Delete a version."""
        self.eggs.delete(project, version)
        self.clear()

    def find(self, project: str, version: str | None = None) -> ProjectCode:
        """Return the code of a *version* of *project*, by default of the newest version.

        Raises NotFound, or ProjectFailed for an egg that cannot be unpacked.
        """
        if version is None:
            version = next(reversed(self.eggs.list(project)), None)
        if (project, version) not in self._found:
            try:
                self._found[project, version] = self._find(project, version)
            except CatlogError:
                raise
            except Exception as error:  # the boundary to eggs: they may hold anything
                reason = f"its egg cannot be used: {type(error).__name__}: {error}"
                self._found[project, version] = ProjectFailed(reason)
        found = self._found[project, version]
        if isinstance(found, ProjectFailed):
            raise found
        return found

    def _find(self, project: str, version: str | None) -> ProjectCode:
        found, egg = self.eggs.get(project, version)
        if egg is not None:
            with egg:
                folder = _unpack(egg.read(), self.home / "eggs")
            return ProjectCode(_settings_module(folder), str(folder), found)
        if version is not None:
            raise NotFound(f"version '{version}' of project '{project}' not found")
        if project not in self._modules():
            raise NotFound(f"project '{project}' not found")
        root = Path(closest_scrapy_cfg() or "scrapy.cfg").absolute().parent
        return ProjectCode(self._modules()[project], str(root), None)


def _unpack(egg: bytes, folder: Path) -> Path:
    """Unpack an egg below *folder*, once: declarations, views and migrations are read as files."""
    target = folder / sha256(egg).hexdigest()[:20]
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder))
        try:
            with tempfile.TemporaryFile() as file:
                file.write(egg)
                with zipfile.ZipFile(file) as archive:
                    archive.extractall(temporary)
            temporary.rename(target)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not isinstance(error, OSError) or not target.exists():
                raise  # otherwise another node with this home has unpacked the egg meanwhile
    return target


def _settings_module(folder: Path) -> str:
    """Return the settings module that an unpacked egg's entry point names."""
    points = ConfigParser(delimiters=("=",))
    points.read(folder / "EGG-INFO" / "entry_points.txt")
    module = points.get("scrapy", "settings", fallback="")
    if not module:
        raise ProjectFailed(
            "the egg has no entry point `settings` in the group `scrapy`; build it with"
            " scrapyd-deploy"
        )
    return module
