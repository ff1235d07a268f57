"""The examples run as they are, as scripts and as the notebooks of the gallery, and every one draws."""

import io
import runpy
from pathlib import Path

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
SLOW = {  # the others show every call that these make
    "plot_attack_and_defend",
    "plot_class_images",
    "plot_fisher_of_a_vit",
    "plot_robust_finetuning",
    "plot_waterbed",
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder like that of the examples in a clone, to run them in."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path / "examples")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    yield
    pyplot.close("all")


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in SLOW else []) for p in EXAMPLES]
)
def test_an_example_runs_and_draws(path, workplace, capsys):
    if "import timm" in path.read_text():
        pytest.importorskip("timm")
    if "../results" in path.read_text() and not Path("../results/networks").is_dir():
        pytest.skip("needs the networks of a clone")
    names = runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()
    figures = [value for value in names.values() if isinstance(value, Figure)]
    assert figures
    for figure in figures:
        figure.savefig(io.BytesIO(), format="png")  # a layout without room for its labels warns, an error here


def test_the_gallery_knows_its_examples():
    assert len(EXAMPLES) >= 10
    listed = {line.strip(' ",') for line in (ROOT / "docs/gallery.py").read_text().splitlines()}
    assert {path.stem for path in EXAMPLES} <= listed
    assert {path.stem for path in EXAMPLES} >= SLOW


@pytest.mark.parametrize("name", ["plot_own_network", pytest.param("plot_attack_and_defend", marks=pytest.mark.slow)])
def test_the_notebook_of_an_example_runs(name, workplace):
    """As the gallery offers it for download."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebooks = pytest.importorskip("sphinx_gallery.notebook")
    parser = pytest.importorskip("sphinx_gallery.py_source_parser")
    from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF

    path = ROOT / f"examples/{name}.py"
    _, blocks = parser.split_code_and_text_blocks(str(path))
    cells = notebooks.jupyter_notebook(blocks, dict(DEFAULT_GALLERY_CONF), str(path.parent))
    notebook = nbformat.from_dict(cells)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
