"""The documentation knows every public name."""

import re
from pathlib import Path

import pytest

import waterbed as wb

API = Path(__file__).parents[2] / "docs/api.md"
pytestmark = pytest.mark.skipif(not API.is_file(), reason="only in a checkout")


def test_every_public_name_is_listed_once():
    assert sorted(re.findall(r"^   (\w+)$", API.read_text(), re.M)) == sorted(wb.__all__)
