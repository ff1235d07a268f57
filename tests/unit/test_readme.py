"""The README says what the files say."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
pytestmark = pytest.mark.skipif(not README.is_file(), reason="only in a checkout")


@pytest.mark.parametrize("results", ["results/demo", "results/cpu"])
def test_table_is_the_one_of_the_results(results):
    spec = importlib.util.spec_from_file_location("update_readme", ROOT / "tools/update_readme.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = README.read_text()
    assert tool.update(ROOT / results, text) == text, f"python tools/update_readme.py {results}"


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target


def test_example_runs(tmp_path, monkeypatch):
    """The Python example, with the numbers of steps cut."""
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    for long, short in (
        ("epochs=8", "epochs=1"),
        ("num_samples=200", "num_samples=20"),
        ("steps=500", "steps=3"),
        ("width=16", "width=2"),
    ):
        assert long in code, long
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "inversion.png").is_file()
