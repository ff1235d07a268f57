"""Facts that other tools read in files of their own: dependencies for conda-forge, the version to cite."""

import re
import sys
from pathlib import Path

import pytest

import waterbed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="not a checkout")


def requirement(text: str) -> tuple[str, str]:
    """Name in lower case, as conda-forge writes it, and version bounds."""
    name, bounds = re.fullmatch(r"([A-Za-z0-9_-]+)\s*([^;]*?)\s*(?:;.*)?", text).groups()
    return CONDA_NAMES.get(name.lower(), name.lower()), bounds


def test_conda_recipe_has_the_dependencies_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    recipe = (ROOT / "packaging" / "recipe.yaml").read_text()
    run = re.search(r"^  run:\n((?:    .*\n)+)", recipe, re.M).group(1)
    listed = [line.strip()[2:] for line in run.splitlines() if line.strip().startswith("- ")]
    assert listed[0].startswith("python ")
    assert sorted(map(requirement, listed[1:])) == sorted(map(requirement, project["dependencies"]))


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M).group(1) == waterbed.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M).group(1)
    assert waterbed.__version__ in (newest, f"{newest}.dev0")
