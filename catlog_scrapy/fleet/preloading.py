"""Import of a project before its first fork, and the conditions of a fork."""

import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

from rich.console import Console
from scrapy.settings import BaseSettings, Settings
from scrapy.utils.misc import load_object
from scrapy.utils.project import get_project_settings

from catlog_scrapy import addon
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.declarations import load_spiders
from catlog_scrapy.declarations.capabilities import Capabilities, read_capabilities
from catlog_scrapy.processes import child_processes, open_descriptors

# Endings of the settings that name components of a crawl.
COMPONENT_SETTINGS = (
    "_CLASS",
    "_MIDDLEWARES",
    "_QUEUE",
    "ADDONS",
    "DOWNLOADER",
    "DOWNLOAD_HANDLERS",
    "EXTENSIONS",
    "ITEM_PIPELINES",
    "ITEM_PROCESSOR",
    "LOG_FORMATTER",
    "SCHEDULER",
)
SITE_PACKAGES = f"{os.sep}site-packages{os.sep}"


def preload_project() -> tuple[Settings, Capabilities]:
    """Import everything that a crawl of the project needs."""
    settings = get_project_settings()
    addon.CatlogAddon.update_pre_crawler_settings(settings)
    settings.set("LOG_LEVEL", "INFO", "default")
    capabilities = read_capabilities(settings, load_spiders(settings))
    for name in settings:
        if name.removesuffix("_BASE").endswith(COMPONENT_SETTINGS):
            _import_components(settings[name])
    for component in addon.COMPONENTS:
        load_object(component)
    _warm_up(settings)
    return settings, capabilities


def _warm_up(settings: Settings) -> None:
    """Make the first uses here that would cost every child milliseconds. They leave no state."""
    settings.set("LOG_VERSIONS", [], "default")
    make_engine(settings["CATLOG_DATABASE_URL"]).dispose()
    Console(file=io.StringIO()).print("[green]a line[/]")


def _import_components(value: Any) -> None:
    if isinstance(value, BaseSettings | dict):
        for key, component in value.items():
            _import_components(key)
            _import_components(component)
    elif isinstance(value, str) and "." in value:
        try:
            load_object(value)
        except Exception:  # unused, or not installed: a crawl that needs the component reports it
            return


def project_files() -> list[str]:
    """List the project's modules and their folders: a change there makes the zygote stale."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    folder = os.environ["PYTHONPATH"].partition(os.pathsep)[0] + os.sep
    own = {file for file in files if file and file.startswith(folder) and SITE_PACKAGES not in file}
    return sorted(own | {str(Path(file).parent) for file in own})


def fork_obstacle(descriptors_before: set[str]) -> str | None:
    """Return the reason why a fork would share state of the project, or None.

    *descriptors_before* are the file descriptors that were open before the import.
    """
    opened = sorted(open_descriptors() - descriptors_before)
    if opened:
        return f"importing the project opened files and did not close them: {', '.join(opened)}"
    if child_processes():
        return "importing the project started a process"
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:])
        return f"importing the project started threads: {names}"
    if "twisted.internet.reactor" in sys.modules:
        return "importing the project installed a reactor"
    return None
