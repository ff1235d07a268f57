"""waterbed paper, from nothing to the page, on a few images."""

import json
import re
import shutil

import pytest

from waterbed.__main__ import main
from waterbed_paper.reproduction import open_graph, reproduce

TINY = """
about = "A few images, to see that it runs."
measured = 6
[[sources]]
name = "fashion-mini"
data = "fashion-mini"
size = 8
train = 40
test = 30
model = "resnet10"
width = 2
epochs = 1
batch_size = 32
augment = "none"
attack_steps = 1
seeds = { 0 = 1, 1 = 1 }
gaussian_noise = { 1 = 1 }
evaluated_eps = [0.5]
[transfers]
targets = ["digits"]
modes = { 0 = 1, 1 = 1 }
train = 40
epochs = { 0 = 1, 1 = 1 }
attack_eps = [0.5]
bounds = 2
[inversions]
images = 2
shown = 2
steps = 2
num_samples = 6
elsewhere = "digits"
convergence_images = 2
convergence_steps = 2
convergence_seeds = 1
convergence_betas = [1e-8]
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    place = tmp_path_factory.mktemp("paper")
    (place / "tiny.toml").write_text(TINY)
    return place, reproduce(place / "tiny.toml", place / "out", progress=False)


def test_everything_runs(done):
    place, found = done
    assert found.failures == {}
    _, graph = open_graph(place / "tiny.toml", place / "out")
    assert found.ran == len(graph.nodes) > 20
    verdicts = {j.claim.id: j.verdict for j in found.judged}
    assert verdicts["example-3.3"] == "holds"
    assert verdicts["prop-3.2"] in ("holds", "undecided")
    assert verdicts["input-fisher"] == "undecided", "one seed decides nothing"
    assert verdicts["fig-3"] == "not run"
    page = found.page.read_text()
    assert "A few images, to see that it runs." in page
    assert all(j.claim.sentence.split(",")[0] in page for j in found.judged[:3])


def test_a_resumed_run_computes_nothing(done, capsys):
    place, found = done
    page = found.page.read_text()
    assert main(f"paper --scale {place}/tiny.toml --out {place}/out".split()) == 0
    shown = capsys.readouterr().out
    assert "0 experiments run" in shown
    assert "fig-2-speed" in shown
    assert found.page.read_text() == page


def test_a_dry_run_lists_what_is_left(done, tmp_path, capsys):
    place, _ = done
    assert main(f"paper --scale {place}/tiny.toml --out {place}/out --dry-run --only transfer".split()) == 0
    shown = capsys.readouterr().out
    assert "0 of" in shown
    assert main(f"paper --scale {place}/tiny.toml --out {tmp_path}/new --dry-run --only accuracy".split()) == 0
    shown = capsys.readouterr().out
    assert "6 of 6 experiments to run" in shown, "three networks, each evaluated"
    assert not (tmp_path / "new").exists(), "nothing is written"


def test_networks_are_taken_where_they_were_trained(done, tmp_path):
    place, _ = done
    _, graph = open_graph(place / "tiny.toml", tmp_path / "out", networks=place / "out/networks")
    assert graph.run(["network"], progress=False) == {}
    assert not (tmp_path / "out/runs").exists(), "nothing is trained again"
    other = (place / "tiny.toml").read_text().replace("epochs = 1\nbatch_size", "epochs = 2\nbatch_size")
    (tmp_path / "other.toml").write_text(other)
    shutil.copytree(place / "out/networks", tmp_path / "networks")
    _, graph = open_graph(tmp_path / "other.toml", tmp_path / "out", networks=tmp_path / "networks")
    assert graph.run(["network/fashion-mini/standard"], progress=False) == {}
    assert (tmp_path / "out/runs/fashion-mini-standard").is_dir(), "of other settings: trained"


def test_results_of_other_data_or_without_their_networks_are_not_mixed(done, tmp_path):
    place, _ = done
    shutil.copytree(place / "out", tmp_path / "out")
    _, graph = open_graph(place / "tiny.toml", tmp_path / "out", networks=tmp_path / "nowhere")
    graph.file("accuracy/fashion-mini/standard/seed-0").unlink()
    failed = graph.run(["accuracy"], progress=False)
    assert re.search("nowhere.*name the folder", failed["accuracy/fashion-mini/standard/seed-0"])
    (record,) = (tmp_path / "out/data").glob("fashion-mini-1x8x8.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"images": "of others"}))
    _, graph = open_graph(place / "tiny.toml", tmp_path / "out")
    failed = graph.run(["accuracy"], progress=False)
    assert "results from another 'fashion-mini'" in failed["accuracy/fashion-mini/standard/seed-0"]
    record.write_text("{cut")
    failed = graph.run(["accuracy"], progress=False)
    assert re.search("fashion-mini-1x8x8.json' is damaged.*remove it", failed["accuracy/fashion-mini/standard/seed-0"])
    record.unlink()
    assert graph.run(["accuracy"], progress=False) == {}
    assert record.is_file()


def test_networks_of_another_precision_are_trained_again(done, tmp_path):
    place, _ = done
    kept = json.loads((place / "out/networks/fashion-mini-standard.json").read_text())["config"]["precision"]
    other = {"bf16": "fp32", "fp32": "bf16"}[kept]
    (tmp_path / "other.toml").write_text(f'precision = "{other}"\n' + (place / "tiny.toml").read_text())
    shutil.copytree(place / "out/networks", tmp_path / "networks")
    _, graph = open_graph(tmp_path / "other.toml", tmp_path / "out", networks=tmp_path / "networks")
    assert graph.run(["network/fashion-mini/standard"], progress=False) == {}
    assert (tmp_path / "out/runs/fashion-mini-standard").is_dir()


def test_a_failure_is_said_and_the_page_is_written(done, tmp_path, capsys):
    place, _ = done
    broken = (place / "tiny.toml").read_text().replace('targets = ["digits"]', 'targets = ["digits", "svhn"]')
    (tmp_path / "broken.toml").write_text(broken)
    words = f"paper --scale {tmp_path}/broken.toml --out {tmp_path}/out --root {tmp_path} --only distance"
    assert main([*words.split(), "--networks", f"{place}/out/networks"]) == 2
    captured = capsys.readouterr()
    assert "1 experiment failed" in captured.err
    assert re.search(r"\d+ of \d+ are missing", " ".join(captured.out.split()))
    assert "the others were there" not in captured.out
    assert "svhn" in captured.err
    assert (tmp_path / "out/index.html").is_file()
    assert json.loads((tmp_path / "out/nodes/distance/fashion-mini/digits.json").read_text())["result"]["value"] > 0
