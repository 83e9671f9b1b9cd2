"""Projects of a node: their names, their capabilities, and the zygotes that run their spiders."""

import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any

from scrapyd.config import Config

from catlog_scrapy.declarations.capabilities import Capabilities
from catlog_scrapy.exceptions import CatlogError, NotFound
from catlog_scrapy.fleet.project_code import CodeStorage, ProjectCode, ProjectFailed
from catlog_scrapy.fleet.zygote_client import ZygoteProcess
from catlog_scrapy.fleet.zygote_pool import IMPORT_TIMEOUT_S, ZygotePool
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.sql import clean

# Time that a web request waits for a project that is being imported.
WEB_TIMEOUT_S = 20.0


class Projects:
    """The projects of a node, by scrapyd's names.

    A project has a second name, which the database uses: its CATLOG_PROJECT or BOT_NAME. Public
    methods may wait, so they are called in threads.
    """

    def __init__(self, config: Config, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.environment = environment
        self.codes = CodeStorage(config, home)
        self.zygotes = ZygotePool(environment, cold=not config.getboolean("warm", True))
        self.last_names: dict[str, str] = {}
        self.last_errors: dict[str, str] = {}

    def refresh(self) -> None:
        """Look for new code, and retire zygotes of former code."""
        self.codes.clear()
        self.zygotes.retire_all_but(code for code in map(self._newest, self.names()) if code)

    def _newest(self, project: str) -> ProjectCode | None:
        try:
            return self.codes.find(project)
        except CatlogError:
            return None

    def names(self) -> list[str]:
        """Return scrapyd's names of the projects."""
        return self.codes.names()

    def display_names(self) -> list[str]:
        """Return the names for people: a project that was not deployed has its database name."""
        known, local = self.database_names(), self.codes.local_names()
        return list(dict.fromkeys(known.get(p, p) if p in local else p for p in self.names()))

    def database_names(self) -> dict[str, str]:
        """Return the database names of all projects that can be imported, by scrapyd's names."""
        found = {}
        for project in self.names():
            try:
                found[project] = self.capabilities(project).project
            except (NotFound, ProjectFailed):
                continue
        return found

    def database_name(self, project: str) -> str:
        """Return the database name of *project*, given either name. Raises NotFound."""
        if project in self.names():
            try:
                return self.capabilities(project).project
            except ProjectFailed:
                if project in self.last_names:
                    return self.last_names[project]
                raise
        if project in self.database_names().values():
            return project
        raise NotFound(f"project '{project}' not found")

    def capabilities(
        self, project: str, version: str | None = None, *, timeout_s: float = WEB_TIMEOUT_S
    ) -> Capabilities:
        """Return what *project*, given either name, can run. Raises NotFound or ProjectFailed."""
        if project not in self.names():
            project = next((p for p, n in self.database_names().items() if n == project), project)
        zygote = self.zygotes.current(self.codes.find(project, version))
        try:
            capabilities = zygote.capabilities.result(timeout_s)
        except NotYet as error:
            raise ProjectFailed(f"importing it takes more than {timeout_s:g} s") from error
        self.last_names[project] = capabilities.project
        return capabilities

    def apply(self, project: str, version: str) -> list[str]:
        """Apply the declarations of an egg, and return the changes as `scrapy apply` prints them.

        Raises ProjectFailed if the declarations are refused; then nothing has changed.
        """
        code = self.codes.find(project, version)
        if not any(Path(code.folder).glob("*/providers/*.toml")):
            return ["nothing to apply: the egg has no providers/*.toml"]
        done = subprocess.run(
            [sys.executable, "-m", "scrapy", "apply"],
            cwd=self.home,
            env=code.environment(self.environment),
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise ProjectFailed(done.stderr.strip()[-2000:])
        return done.stdout.splitlines()

    def discard(self, project: str, version: str) -> None:
        """Delete a version that cannot be used."""
        self.codes.delete(project, version)
        self.refresh()

    def status(self) -> dict[str, dict[str, Any]]:
        """Return each project's version and error without waiting, and start missing zygotes."""
        return {project: self._status(project) for project in self.names()}

    def _status(self, project: str) -> dict[str, Any]:
        try:
            code = self.codes.find(project)
            found = self.zygotes.current(code).capabilities
            if not found.done():
                return {"version": code.version, "error": self.last_errors.get(project, "starting")}
            self.last_errors.pop(project, None)
            return {"version": code.version, "project": found.result().project}
        except Exception as error:  # the boundary to the project's code: people must see any error
            self.last_errors[project] = clean(str(error) or type(error).__name__)
            return {"error": self.last_errors[project]}

    def find_zygote(self, claim: Claim) -> ZygoteProcess | str:
        """Return the zygote that can run *claim*, or the reason why no project here can.

        Raises ProjectFailed if the claim may belong to a project that cannot be imported, or not
        yet.
        """
        reasons, failures = [], []
        for project in self.names():
            try:
                code = self.codes.find(project, claim.project_version)
                # No wait for an import here: the leases of the claims run.
                zygote = self.zygotes.running(code)
                reason = zygote.capabilities.result(0).reason_unsupported(claim)
            except NotFound as error:
                reasons.append(str(error))
                continue
            except NotYet:
                failures.append(f"project {project!r} is being imported")
                continue
            except Exception as error:  # the boundary to the project: the claim must be released
                failures.append(f"project {project!r}: {error}")
                continue
            if reason is None:
                return zygote
            reasons.append(reason)
        if failures:
            raise ProjectFailed("; ".join(failures))
        return "; ".join(dict.fromkeys(reasons)) or "this node has no project"
