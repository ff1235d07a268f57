"""The documentation knows every public name."""

import re
from pathlib import Path

import pytest

import waterbed as wb
from waterbed_paper.reproduction import open_graph

API = Path(__file__).parents[2] / "docs/api.md"
pytestmark = pytest.mark.skipif(not API.is_file(), reason="only in a checkout")


def test_every_public_name_is_listed_once():
    assert sorted(re.findall(r"^   (\w+)$", API.read_text(), re.M)) == sorted(wb.__all__)


def test_the_scale_of_one_s_own_is_one(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", (API.parent / "paper.md").read_text(), re.DOTALL)
    (tmp_path / "photos.toml").write_text(text)
    _, graph = open_graph(tmp_path / "photos.toml", tmp_path / "out")
    assert {"network/photos/eps-0.5/seed-0", "transfer/photos/eps-1/seed-2/sketches/mode-0"} <= set(graph.nodes)
