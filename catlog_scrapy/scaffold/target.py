"""Target of an operation: the page to read, its provider, and the project's folders."""

import keyword
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from scrapy.commands.genspider import verify_url_scheme
from scrapy.settings import BaseSettings
from scrapy.utils.conf import closest_scrapy_cfg
from w3lib.url import safe_url_string

from catlog_scrapy.config import project_package
from catlog_scrapy.declarations.model import NAME as PROVIDER_NAME
from catlog_scrapy.declarations.reading import DeclaredProvider, read_providers
from catlog_scrapy.exceptions import DeclarationError, NotPossible
from catlog_scrapy.records.sql_names import MAX_NAME_BYTES, SQL_NAME, reserved_mistake
from catlog_scrapy.testing.saved_pages import label

# Names that the templates import: a spider class of such a name would hide the import.
RESERVED_CLASS_NAMES = {"Any", "AsyncIterator", "Iterator", "JsonDocument", "Record"}
RESERVED_CLASS_NAMES |= {"Path", "Request", "Response", "SavedPage", "Spider"}


@dataclass(frozen=True)
class Target:
    """Page at `base_url`/`path` of a provider.

    `file` is the provider's file. `declared` holds its tables, or None for a new provider.
    """

    url: str
    provider: str
    base_url: str
    file: Path
    declared: DeclaredProvider | None

    @property
    def path(self) -> str:
        """Return the URL below the base_url, query included."""
        return self.url.removeprefix(self.base_url).lstrip("/")

    def has_scheme(self, name: str) -> bool:
        """Return whether the provider has a scheme *name*."""
        schemes = self.declared.file.scheme if self.declared else []
        return any(scheme.name == name for scheme in schemes)


@dataclass(frozen=True)
class ProjectLayout:
    """Folders of a project. `items` is None for a project without such a package."""

    spiders: Path
    spiders_module: str
    items: Path | None
    tests: Path

    @classmethod
    def of(cls, settings: BaseSettings) -> "ProjectLayout":
        """Find the project's folders. Raises NotPossible if its spiders are not in a package."""
        root = Path(closest_scrapy_cfg()).parent
        module = settings["NEWSPIDER_MODULE"] or next(iter(settings.getlist("SPIDER_MODULES")), "")
        spec = find_spec(module) if module else None
        if spec is None or not spec.submodule_search_locations:
            raise NotPossible(
                f'NEWSPIDER_MODULE = "{module}" is not a package; name the package of your spiders.'
            )
        items = project_package(settings, root) / "items"
        return cls(
            spiders=Path(next(iter(spec.submodule_search_locations))),
            spiders_module=module,
            items=items if (items / "__init__.py").exists() else None,
            tests=root / "tests",
        )


def check_name(name: str, project: str) -> None:
    """Raise NotPossible unless *name* can be a spider, its module, its scheme and its view."""
    class_name = class_name_of(name)
    if not SQL_NAME.fullmatch(name) or len(name) > MAX_NAME_BYTES:
        raise NotPossible(
            f'"{name}" is not a valid name of a spider and its view; use lower-case letters, digits'
            f' and "_", a letter first, at most {MAX_NAME_BYTES} characters.'
        )
    if mistake := reserved_mistake(name):
        raise NotPossible(f"{mistake}.")
    if (
        keyword.iskeyword(name)
        or keyword.iskeyword(class_name)
        or class_name in RESERVED_CLASS_NAMES
    ):
        raise NotPossible(f'"{name}" is reserved by Python or Scrapy; choose another name.')
    if name == project:
        raise NotPossible(f'"{name}" is the name of the project; choose another name.')


def class_name_of(name: str) -> str:
    """Return the class name of the spider *name*: `FuelPrices` for `fuel_prices`."""
    return name.title().replace("_", "")


def find_target(settings: BaseSettings, url: str, provider: str | None) -> Target:
    """Find the provider of the page at *url*.

    Without *provider*, it is the provider whose base_url contains the URL, or else a new provider
    named after the host. Raises NotPossible for an unusable URL or name, and DeclarationError if
    the provider files have mistakes already.
    """
    try:
        url = safe_url_string(verify_url_scheme(url)).partition("#")[0]
        parts = urlsplit(url)
    except ValueError as error:
        raise NotPossible(f'"{url}" is not a valid URL: {error}; correct it.') from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotPossible(
            f'"{url}" is not a valid URL; use an absolute URL, such as https://example.com/prices'
        )
    if parts.username or parts.password:
        raise NotPossible(
            "the URL contains a user name or password, which files must not hold; remove it."
        )
    folder = Path(settings["CATLOG_PROVIDERS"])
    files, mistakes = read_providers(folder) if folder.is_dir() else ([], [])
    raise_mistakes(mistakes)
    base_url = f"{parts.scheme}://{parts.netloc}"
    name = provider or next((d.file.provider.name for d in files if _is_below(url, d)), None)
    name = name or re.sub(r"\W+", "_", parts.hostname.removeprefix("www.")).strip("_")
    if not PROVIDER_NAME.fullmatch(name):
        raise NotPossible(
            f'"{name}" is not a valid provider name; use letters, digits, "_" and "-".'
        )
    for declared in files:
        if declared.file.provider.name == name:
            if not _is_below(url, declared):
                base = declared.file.provider.base_url
                known = f"has the base_url {base}" if base else "has no base_url"
                raise NotPossible(
                    f'{url} is not a page of the provider "{name}", which {known};'
                    " name another provider with --provider."
                )
            file = folder / Path(declared.source.name).name
            return Target(url, name, str(declared.file.provider.base_url), file, declared)
    file = folder / f"{name}.toml"
    if file.exists():
        raise NotPossible(
            f"{label(file)} declares another provider; choose a name with --provider."
        )
    return Target(url, name, base_url, file, None)


def _is_below(url: str, declared: DeclaredProvider) -> bool:
    base_url = declared.file.provider.base_url
    return bool(base_url) and (url + "/").startswith(f"{base_url}".rstrip("/") + "/")


def raise_mistakes(mistakes: list[str]) -> None:
    """Raise DeclarationError with all *mistakes*, if there are any."""
    if mistakes:
        raise DeclarationError("\n  ".join(["nothing was generated:", *mistakes]))
