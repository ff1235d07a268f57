"""The README and the pages beside it say what the files say."""

import re
from pathlib import Path

import pytest
import torch
from tests.programs import load_program

import waterbed as wb
from waterbed.data.images import ImageData, TensorImages

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
pytestmark = pytest.mark.skipif(not README.is_file(), reason="only in a checkout")


@pytest.mark.parametrize("results", ["results/demo", "results/cpu"])
def test_pages_have_the_numbers_of_the_results(results):
    tool = load_program("tools/update_docs.py")
    for page, text in tool.pages(ROOT / results).items():
        assert page.read_text() == text, f"python tools/update_docs.py {results}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/demo.md", "docs/verdicts.md", "docs/paper.md"])
def test_links_and_pictures_exist(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_two_commands_and_the_length():
    text = README.read_text()
    assert "\npython -m pip install . && waterbed demo\n" in text
    assert "\npython -m pip install -e '.[test]' && python -m pytest\n" in text
    assert len(text.splitlines()) < 150


def test_example_runs(tmp_path, monkeypatch):
    """The Python example on images of noise, with its numbers of images and steps cut."""
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    for long, short in (
        ("num_samples=500", "num_samples=4"),
        ("num_samples=100", "num_samples=4"),
        ("[:8], steps=500", "[:1], steps=3"),
        ("steps=20", "steps=2"),
        ('mode="linear"', 'mode="linear", epochs=1, lr=0.1'),
        ('"results/networks', f'"{ROOT}/results/networks'),
    ):
        assert long in code, long
        code = code.replace(long, short)
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    noise = TensorImages(images, torch.arange(20) % 10)
    data = ImageData("cifar10", noise, noise, tuple("abcdefghij"))
    monkeypatch.setattr(wb, "load_dataset", lambda name, download: data, raising=False)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "inversion.png").is_file()
