"""train --augment package.module:function: a transform of one's own, by a name that the run records."""

import re
import sys

import pytest

from waterbed.__main__ import main
from waterbed.training.run_folder import Run

IMAGES = """
import torch
from torchvision.transforms import v2

seen = []

def invert(image):
    seen.append(tuple(image.shape))
    return 1 - image

shift = v2.RandomAffine(0, (0.1, 0.1))

def narrow(image):
    return image[..., 1:]

def bright(image):
    return image + 1

def numpy(image):
    return image.numpy()

number = 3
"""


@pytest.fixture
def own_images(tmp_path, monkeypatch):
    """A module in the working directory, imported by nobody yet."""
    (tmp_path / "own_images.py").write_text(IMAGES)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_images", None)


TRAIN = "train digits --model resnet10 --width 2 --epochs 1 --batch-size 512 --watch 0 --objective standard"


def test_every_command_opens_a_run_with_an_own_augmentation(own_images, capsys):
    words = f"{TRAIN} --augment own_images:invert --out run".split()
    assert main(words) == 0
    assert sys.modules["own_images"].seen == [(1, 8, 8)] * len(sys.modules["own_images"].seen)
    assert len(sys.modules["own_images"].seen) > 1000, "every training image was changed"
    assert Run.load("run").config["augment"] == "own_images:invert"
    assert main([*words, "--dry-run"]) == 0

    (own_images / "own_images.py").unlink()
    sys.modules.pop("own_images")
    for command in (
        f"evaluate run --num-samples 20 --out {own_images}/e.json",
        "measure run --num-samples 4 --quantities input_fisher_trace",
        "transfer run --targets digits --mode linear --epochs 1 --lr 0.1 --seeds 0 --num-train 50 --out rows.csv",
        "report run --out page.html",
    ):
        assert main(command.split()) == 0, command
    assert "own_images" not in sys.modules, "opening a run imports nothing"
    assert "own_images:invert" in (own_images / "page.html").read_text()
    assert main(words) == 2, "but training does"
    assert "--augment 'own_images:invert' cannot be imported" in capsys.readouterr().err


def test_it_resumes_and_another_is_refused(own_images, capsys):
    words = f"{TRAIN} --out run --augment".split()
    assert main([*words, "own_images:shift"]) == 0
    before = (own_images / "run/metrics.jsonl").read_bytes()
    assert main([*words, "own_images:shift"]) == 0
    assert (own_images / "run/metrics.jsonl").read_bytes() == before
    assert main([*words, "own_images:invert"]) == 2
    assert "--augment 'own_images:shift', not 'own_images:invert'" in capsys.readouterr().err


REFUSED = {
    "own_images:nowhere": "--augment 'own_images:nowhere' cannot be imported",
    "no_such_module:change": "No module named 'no_such_module'",
    "own_images:number": "is int, not a function",
    "own images:change": "is no name of a function; write package.module:function",
    "rotate": "choose one of 'auto', .*'package.module:function'",
    "own_images:narrow": r"returned torch.float32 \(1, 8, 7\) on cpu for an image torch.float32 \(1, 8, 8\)",
    "own_images:bright": "what .*augment.* returned has values from 1 to 2",
    "own_images:numpy": "returned ndarray for an image; return a tensor like it",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_augmentation_is_refused_in_one_line(name, own_images, capsys):
    assert main([*f"{TRAIN} --out run --augment".split(), name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(REFUSED[name], line), line
    assert not (own_images / "run/weights.safetensors").exists()


PARTS = """
import torch
import waterbed as wb

class Smoothed(wb.AdversarialTraining):
    def __init__(self, attack, beta):
        super().__init__(attack)
        object.__setattr__(self, "beta", beta)

    def config(self):
        return {**super().config(), "name": "smoothed", "beta": self.beta}

def adam(parameters):
    return torch.optim.Adam(parameters, 1e-3)

def darkened(eps, norm):
    def attack(model, x, y):
        return (x - eps).clamp(0, 1)

    return wb.as_attack(attack, name=f"darkened {norm} {eps:g}", eps=eps, norm=norm)

def nothing(**settings):
    return None

def no_attack():
    return None
"""


@pytest.fixture
def own_parts(tmp_path, monkeypatch):
    """Objective, optimiser and attack of one's own."""
    (tmp_path / "own_parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_parts", None)


SHORT = "train digits --model resnet10 --width 2 --epochs 1 --batch-size 512 --watch 0 --out run"


def test_objective_optimizer_and_attack_by_name(own_parts):
    words = f"{SHORT} --objective own_parts:Smoothed --beta 2 --eps 0.25 --attack-steps 1 --optimizer own_parts:adam"
    assert main(words.split()) == 0
    config = Run.load("run").config
    assert {k: config["objective"][k] for k in ("name", "beta", "eps")} == {
        "name": "smoothed",
        "beta": 2.0,
        "eps": 0.25,
    }
    assert config["optimizer"] == "own_parts:adam"
    assert "lr" not in config, "the optimiser has its own"
    assert main(words.split()) == 0, "a finished run is the same run"
    words = "evaluate run --attacks own_parts:darkened --eps 0.1 0.2 --norm linf --num-samples 20 --out found.json"
    assert main(words.split()) == 0
    assert '"darkened linf 0.1"' in (own_parts / "found.json").read_text()
    words = "transfer run --targets digits --mode 2 --objective own_parts:Smoothed --attack-steps 1 --epochs 1 --lr 0.1"
    assert main(f"{words} --seeds 0 --num-train 50".split()) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"{SHORT} --objective own_parts:nowhere", "--objective 'own_parts:nowhere' cannot be imported"),
        (
            f"{SHORT} --objective own_parts:no_attack",
            "cannot be called with 'attack' .*, and 'beta' and 'gamma' if",
        ),
        (f"{SHORT} --objective own_parts:nothing", "lacks __call__, config; it must be an objective"),
        (f"{SHORT} --objective mine", "choose one of .*'gaussian-noise', 'package.module:function'"),
        (f"{SHORT} --optimizer own_parts:nowhere", "--optimizer 'own_parts:nowhere' cannot be imported"),
        (
            f"{SHORT} --optimizer own_parts:no_attack --lr 0.1",
            "--lr 0.1 does not reach --optimizer 'own_parts:no_attack'",
        ),
        ("evaluate digits.safetensors --attacks own_parts:no_attack", "cannot be called with 'eps'"),
        ("evaluate digits.safetensors --attacks mine", "choose one of 'pgd', 'standard', 'package.module:function'"),
    ],
)
def test_what_is_none_of_them_is_refused_in_one_line(words, message, own_parts, capsys):
    assert main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
