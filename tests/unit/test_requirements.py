"""Bounds of the versions of dependencies."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
REQUIREMENTS = {
    requirement.name: requirement
    for requirement in map(Requirement, (ROOT / "requirements.txt").read_text().splitlines())
}


@pytest.mark.parametrize("name", ["scrapy", "fastapi", "scrapyd", "sqlalchemy", "setuptools"])
def test_package_whose_next_version_may_break_catlog_has_an_upper_bound(name: str) -> None:
    bounds = {specifier.operator for specifier in REQUIREMENTS[name].specifier}
    assert bounds == {">=", "<"}


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_installed_version_is_within_its_bounds(name: str) -> None:
    assert version(name) in REQUIREMENTS[name].specifier


def test_vulnerable_setuptools_is_refused_at_build_and_at_run_time() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [build] = project["build-system"]["requires"]
    assert Requirement(build).specifier == REQUIREMENTS["setuptools"].specifier
    assert "78.1.0" not in REQUIREMENTS["setuptools"].specifier
    assert "81.0.0" not in REQUIREMENTS["setuptools"].specifier
