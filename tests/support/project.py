"""Foreign Scrapy project that a test makes and runs as real processes."""

import os
import textwrap
from pathlib import Path

from tests.support.forked import Command


def inherited_environment() -> dict[str, str]:
    """Return this process's variables without those that catlog and Scrapy read."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CATLOG", "SCRAPY"))
    }


class Project:
    """Project `shop` in *folder*, a catlog project by its ADDONS setting."""

    def __init__(self, folder: Path, database_url: str | None, **environment: str) -> None:
        self.folder = folder
        self.environment = {
            **inherited_environment(),
            **({"CATLOG_DATABASE_URL": database_url} if database_url else {}),
            "CATLOG_POLL": "0.1",
            "PYTHONPATH": str(folder),
            **environment,
        }
        self.write("scrapy.cfg", "[settings]\ndefault = shop.settings\n")
        self.write("shop/__init__.py", "")
        self.write("shop/spiders/__init__.py", "")
        self.write(
            "shop/settings.py",
            """
            BOT_NAME = "shop"
            SPIDER_MODULES = ["shop.spiders"]
            ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}
            RETRY_TIMES = 0
            """,
        )

    def write(self, path: str, text: str) -> Path:
        """Write a file of the project; *text* may be indented."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return file

    def start(self, *arguments: str) -> Command:
        """Start `scrapy ARGUMENTS...`."""
        return Command(arguments, self.folder, self.environment)

    def scrapy(self, *arguments: str, code: int | None = 0) -> str:
        """Run `scrapy ARGUMENTS...` with the exit code *code*; return its output."""
        command = self.start(*arguments)
        out, err = command.communicate()
        if code is not None:
            assert command.returncode == code, f"exit {command.returncode}\n{out}\n{err}"
        assert "Traceback" not in err or code is None, err
        return out + err
