"""Files of an operation, rendered from templates."""

import ast
import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from scrapy.http import HtmlResponse, JsonResponse, Response, TextResponse

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.scaffold.target import ProjectLayout, Target, class_name_of
from catlog_scrapy.testing.saved_pages import GOLDEN_SUFFIX

TEMPLATES = Path(__file__).with_name("templates")
SUFFIXES = {"html": ".html", "json": ".json"}
# The field that the items of every template have, and the key of the records.
KEY_FIELD = "name"


def kind_of(response: Response) -> str | None:
    """Return `html` or `json` by the type of the response, or None for another type."""
    content_type = (response.headers.get("Content-Type") or b"").partition(b";")[0].strip().lower()
    if isinstance(response, JsonResponse) or content_type.endswith((b"/json", b"+json")):
        return "json"
    return "html" if isinstance(response, HtmlResponse) else None


def text_of(response: Response) -> str:
    """Return the text of a response. Raises NotPossible for an empty or binary body."""
    if not response.body.strip():
        raise NotPossible(f"{response.url} is empty; choose another page.")
    if isinstance(response, TextResponse):
        return response.text
    try:
        return response.body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NotPossible(f"{response.url} is not text; choose another page.") from None


@dataclass(frozen=True)
class Generator:
    """Generator of the files of the operation `name`."""

    name: str
    target: Target
    layout: ProjectLayout
    kind: str | None

    @property
    def spider_file(self) -> Path:
        """Return the path of the spider."""
        return self.layout.spiders / f"{self.name}.py"

    def page_file(self, suffix: str) -> Path:
        """Return the path of the saved page, named after the last part of the URL's path."""
        stem = Path(urlsplit(self.target.url).path).stem
        stem = re.sub(r"[^\w-]+", "-", stem).strip("-") or "index"
        return self.layout.tests / "pages" / self.name / f"{stem}{suffix}"

    def files(self, template: str, text: str) -> dict[Path, str]:
        """Render the files from the spider's *template* and the page's *text*, by their paths.

        Raises NotPossible for a template that is not Python, and for JSON without entries.
        """
        suffix = SUFFIXES.get(self.kind or "") or Path(urlsplit(self.target.url).path).suffix
        page = self.page_file(suffix or ".txt")
        values = self._values(page)
        if "$shape" in template:
            values |= _shape(text, self.target.url)
        spider = Template(template).safe_substitute(values)
        values["operation"] = _operation(self.name, declares_record(spider))
        files = {self.spider_file: spider}
        if self.layout.items and values["record_class"] in spider:
            files[self.layout.items / f"{self.name}.py"] = _render("items", values)
        files[page] = text
        files[page.with_suffix(GOLDEN_SUFFIX)] = "[]\n"
        files[self.layout.tests / f"test_{self.name}.py"] = _render("test", values)
        if not self.target.has_scheme(self.name):
            files[self.target.file] = self._provider(values)
        return files

    def _values(self, page: Path) -> dict[str, str]:
        name, target = self.name, self.target
        values = {
            "name": name,
            "classname": class_name_of(name),
            "record_class": f"{class_name_of(name)}Record",
            "module": f"{self.layout.spiders_module}.{name}",
            "url": target.url,
            "domain": urlsplit(target.url).netloc,
            "path": target.path,
            "page": page.name,
            "provider": target.provider,
            "title": urlsplit(target.url).netloc,
            "base_url": target.base_url,
        }
        package = self.layout.spiders_module.partition(".")[0]
        if self.layout.items:
            values["record"] = f"from {package}.items.{name} import {values['record_class']}"
        else:
            values["record"] = _render("record", values).rstrip()
        return values

    def _provider(self, values: Mapping[str, str]) -> str:
        """Return the provider's file with the operation's scheme appended."""
        addition = _render("scheme", values)
        if self.target.declared is None:
            return _render("provider", values) + addition
        with self.target.file.open(encoding="utf-8", newline="") as file:
            text = file.read()
        newline = "\r\n" if "\r\n" in text else "\n"
        return text.rstrip("\r\n") + newline + addition.replace("\n", newline)


def _render(template: str, values: Mapping[str, str]) -> str:
    text = (TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def declares_record(spider: str) -> bool:
    """Return whether a spider has a `record`. Raises NotPossible for a syntax error."""
    try:
        nodes = list(ast.walk(ast.parse(spider)))
    except SyntaxError as error:
        raise NotPossible(
            f"the template does not render valid Python: {error}; correct the template."
        ) from error
    assigned = (node.targets[0] for node in nodes if isinstance(node, ast.Assign))
    return any(isinstance(target, ast.Name) and target.id == "record" for target in assigned)


def _operation(name: str, has_record: bool) -> str:
    """Return the lines that declare the operation, with a kind for a spider without record."""
    if has_record:
        return f'operations = ["{name}"]'
    return f'\n[[scheme.operation]]\nname = "{name}"\nkind = "{name}"\nkey = "{KEY_FIELD}"'


def _shape(text: str, url: str) -> dict[str, str]:
    """Return the template's values for a JSON document: its array of entries, and their fields."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise NotPossible(f"{url} is not valid JSON: {error}; choose another page.") from error
    entries, method = document, ""
    if isinstance(document, dict):
        name = next((name for name, value in document.items() if _are_objects(value)), None)
        entries = [document] if name is None else document[name]
        array = "[document]" if name is None else f"document[{json.dumps(name)}]"
        method = (
            "\n    def entries(self, document: Any) -> Any:\n"
            '        """Return the array of entries."""\n'
            f"        return {array}\n"
        )
    if not _are_objects(entries):
        raise NotPossible(
            f"{url} has no array of objects, which the template needs; name a template with -t."
        )
    fields = re.sub(r'["\\\n]', "", ", ".join(entries[0]))
    indent = " " * 4
    shape = textwrap.fill(fields, 96, initial_indent=indent, subsequent_indent=indent)
    return {"entries": method, "shape": shape.strip()}


def _are_objects(value: Any) -> bool:
    return (
        bool(value) and isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    )
