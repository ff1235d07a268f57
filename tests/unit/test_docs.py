"""The documentation knows every public name."""

import re
from pathlib import Path

import pytest
import torch

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


def test_the_training_guide_s_own_network_and_data(monkeypatch):
    """The snippet as it stands, with a smaller transformer."""
    page = (API.parent / "training.md").read_text()
    code = page.split("## Your network, data, optimiser and hooks")[1].split("```python\n")[1].split("```")[0]
    pytest.importorskip("timm")
    code = code.replace("img_size=32)", "img_size=32, patch_size=8, depth=1, embed_dim=24)")
    labels = torch.arange(16) % 10
    names = {"images": torch.rand(16, 3, 32, 32), "labels": labels}
    exec(compile(code, "training.md", "exec"), names)
    record = names["run"].history[-1]
    assert record["mine"] == 1.0
    assert record["input_fisher_trace"] > 0


@pytest.mark.parametrize("page", ["index.md", "coming-from.md"])
def test_the_code_of_a_page_runs_from_top_to_bottom(page):
    names = {}
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", (API.parent / page).read_text(), re.DOTALL)):
        exec(compile(code, f"{page}, block {i}", "exec"), names)
    assert "figure" in names


def test_links_between_pages_lead_to_headings():
    """GitHub and the site make the same anchor of a heading."""
    missing = []
    for page in sorted(API.parent.glob("*.md")):
        for file, anchor in re.findall(r"\]\(([\w-]*(?:\.md)?)#([\w-]+)\)", page.read_text()):
            target = API.parent / file if file else page
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            anchors = {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}
            if anchor not in anchors:
                missing.append(f"{page.name}: {file}#{anchor}")
    assert not missing
