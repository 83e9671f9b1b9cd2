"""Requests by schemathesis, inside and outside of what the OpenAPI document allows.

SCHEMATHESIS_EXAMPLES is how many requests an operation gets of each role; from 20 on, all
operations are asked, and all that follows from the document besides.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.support.server import ROLES, Served, Worlds

HOOKS = Path(__file__).parents[1] / "support" / "schemathesis_hooks.py"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "1"))
# Many a parameter is a name that only the database knows, so not all that fits is accepted.
NOT_ASKED = ["positive_data_acceptance"]
# In a query it takes for wrong what cannot be told from what is right, such as a null in a list.
NOT_AT_RANDOM = [*NOT_ASKED, "negative_data_rejection"]
# The listings have a hundred filters each, all alike, and resources that hide columns are two more:
# one of them stands for the others.
ALIKE = "^(list_(?!learning)|.*_guarded|get_(catalog|providers|audit)|(pause|resume|cancel)_)"
SOME = [] if EXAMPLES >= 20 else ["--exclude-operation-id-regex", ALIKE]


@pytest.fixture(scope="module")
def served(worlds: Worlds) -> Iterator[Served]:
    with worlds.serving(CATLOG_API_TIMEOUT=120.0) as served:
        yield served


def schemathesis(served: Served, folder: Path, key: str, *options: str) -> int:
    """Run schemathesis, and return its number of requests. Fails with its findings."""
    (folder / "schemathesis.toml").write_text(f'hooks = "{HOOKS}"\n', encoding="utf-8")
    done = subprocess.run(
        [
            *(SCHEMATHESIS, "run", f"{served.url}/openapi.json"),
            *("-H", f"Authorization: Bearer {key}", "--seed", "1", "--generation-deterministic"),
            *("--checks", "all", "--continue-on-failure", "--request-timeout", "300"),
            *("--warnings", "off", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: " in done.stdout
    found = re.search(r"(\d+) generated", done.stdout)
    assert found, done.stdout
    return int(found[1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", [*ROLES, "nobody"])
def test_responses_conform_to_the_openapi_document(
    served: Served, tmp_path: Path, role: str
) -> None:
    phases = "examples,fuzzing" if EXAMPLES < 20 else "examples,coverage,fuzzing"
    cases = schemathesis(
        served,
        tmp_path,
        served.world.keys.get(role, "none"),
        *("--phases", phases, "--max-examples", str(EXAMPLES)),
        *("--exclude-checks", ",".join(NOT_AT_RANDOM)),
        *SOME,
    )
    assert cases > 25


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_coverage_phase_conforms_to_the_openapi_document(served: Served, tmp_path: Path) -> None:
    cases = schemathesis(
        served,
        tmp_path,
        served.world.keys["admin"],
        *("--phases", "coverage", "--exclude-checks", ",".join(NOT_ASKED)),
        *SOME,
    )
    assert cases > 500


def test_openapi_document_is_valid_and_complete(served: Served) -> None:
    document = served.client().get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()
    templates = [re.sub(r"{[^}]*}", "{}", path) for path in document["paths"]]
    assert len(set(templates)) == len(templates)
    names = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = (method, path)
            names.append(operation["operationId"])
            assert operation["summary"] and operation["tags"], where
            assert {"400", "408", "413"} <= set(operation["responses"]), where
            if path != "/healthz":
                assert {"503", "504"} <= set(operation["responses"]), where
            if "security" in operation:
                assert {"401", "403"} <= set(operation["responses"]), where
            for status, answer in operation["responses"].items():
                if status >= "400":
                    content = answer["content"]["application/problem+json"]
                    assert content["schema"]["$ref"].endswith("/ProblemDetails"), where
                    assert content["example"]["status"] == int(status), where
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert has_example(document, content), where
    assert len(set(names)) == len(names)


def has_example(document: dict[str, Any], content: dict[str, Any]) -> bool:
    """Return whether a body has an example, or each required part of it."""
    if "example" in content or "examples" in content:
        return True
    schema = content["schema"]
    for alternative in schema.get("anyOf", [schema]):
        if "$ref" in alternative:
            model = document["components"]["schemas"][alternative["$ref"].rpartition("/")[2]]
            properties = model["properties"]
            return all("examples" in properties[name] for name in model.get("required", ()))
    return False
