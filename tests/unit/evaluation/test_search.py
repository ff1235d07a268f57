"""Attacks search on a fast copy; the network decides."""

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.attacks.balls import as_ball
from waterbed.evaluation import autoattack as autoattack_adapter
from waterbed.evaluation import standard
from waterbed.evaluation.accuracy import correct
from waterbed.evaluation.search import Attacked, attacked, broken_after, broken_by


class Shifted(nn.Module):
    """The network inside with another bias for its first class."""

    def __init__(self, inside, shift):
        super().__init__()
        self.inside, self.shift = inside, shift

    def forward(self, x):
        logits = self.inside(x)
        return torch.cat([logits[:, :1] + self.shift, logits[:, 1:]], 1)


class Counted(nn.Module):
    """The network inside, and how many images it has seen."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.seen = inside, 0

    def forward(self, x):
        self.seen += len(x)
        return self.inside(x)


@pytest.fixture(scope="module")
def network():
    """Two convolutions with batch norm, trained on the digits."""
    torch.manual_seed(0)
    first, second = (nn.Conv2d(c, 16, 3, 2, padding=1, bias=False) for c in (1, 16))
    norms = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
    model = nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    objective = wb.AdversarialTraining(wb.PGD(0.4, steps=2))
    wb.fit(model, wb.load_dataset("digits").take(800, 10), objective, epochs=8, watch=0, progress=False)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def batch(network):
    x, y = wb.stack(wb.load_dataset("digits").test, 60)
    right = correct(network, x, y)
    return x[right], y[right]


def broken_at_the_end(pgd, network, x, y):
    """What the attack of the library breaks, as an evaluation without a copy and without early ends has it."""
    return ~correct(network, pgd(network, x, y), y)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_what_the_whole_attack_breaks_is_broken(network, batch, norm):
    eps = {"l2": 0.6, "linf": 0.1}[norm]
    for pgd in (wb.PGD(eps, norm, 10), wb.PGD(eps, norm, 10, restarts=3)):
        torch.manual_seed(0)
        whole = broken_at_the_end(pgd, network, *batch)
        torch.manual_seed(0)
        broken = broken_by(pgd, attacked(network, batch[0]), *batch)
        assert 5 < int(whole.sum()) < len(whole) - 5, "some fall and some stand"
        assert bool((broken | ~whole).all())
        assert int(broken.sum()) <= int(whole.sum()) + 3, "and hardly any others"


def test_what_is_broken_has_an_image_in_the_ball(network, batch, monkeypatch):
    x, y = batch
    shown, decide = [], standard.correct

    def recorded(model, images, labels):
        shown.append(images)
        return decide(model, images, labels)

    monkeypatch.setattr("waterbed.evaluation.search.correct", recorded)
    broken = broken_by(wb.PGD(0.6, steps=8), attacked(network, x), x, y)
    images = torch.cat(shown)
    assert bool(((images >= 0) & (images <= 1)).all())
    distance = torch.cdist(images.flatten(1), x.flatten(1)).amin(1)
    assert float(distance.max()) <= 0.6 + 1e-5
    assert bool(broken.any())


def test_a_find_on_the_copy_is_no_find(network, batch):
    """A copy that is fooled by everything breaks nothing that the network resists."""
    x, y = batch
    easy = Shifted(network, 1e3)  # calls everything a zero
    pgd = wb.PGD(1e-3, steps=3)
    assert not bool(broken_by(pgd, Attacked(network, easy), x, y).any())
    assert not bool(broken_after(lambda model, x, y: x, Attacked(network, easy), x, y).any())


def test_what_fools_the_copy_alone_meets_the_attack_on_the_network(network, batch):
    x, y = batch
    pgd, met = wb.PGD(0.6, steps=8), []

    def search(model, x, y):
        met.append((model, len(x)))
        return pgd(model, x, y) if model is network else x

    torch.manual_seed(0)
    broken = broken_after(search, Attacked(network, Shifted(network, 1e3)), x, y)
    others = int((y != 0).sum())
    assert [count for _, count in met] == [len(x), others]
    assert met[1][0] is network
    assert 5 < int(broken.sum()) < others


def test_images_that_fall_leave_the_attack(network, batch):
    x, y = batch
    copy = Counted(network)
    pgd = wb.PGD(0.6, steps=10, restarts=3)
    broken = broken_by(pgd, Attacked(network, copy), x, y)
    standing = int((~broken).sum())
    assert standing * 30 <= copy.seen < standing * 30 + int(broken.sum()) * 30 / 2


def test_images_that_fall_leave_at_that_step(network, batch):
    x, y = batch
    copy = Counted(network)
    broken = broken_by(wb.PGD(0.6, steps=20), Attacked(network, copy), x, y)
    fallen, standing = int(broken.sum()), int((~broken).sum())
    assert copy.seen < standing * 20 + fallen * 15


def test_the_last_image_counts(network, batch):
    x, y = batch
    pgd = wb.PGD(0.6, steps=1, step_size=0.6, random_start=False)
    whole = broken_at_the_end(pgd, network, x, y)
    assert bool(whole.any())
    assert torch.equal(broken_by(pgd, Attacked(network, network), x, y), whole)


def test_starts_do_not_depend_on_what_became_of_other_images(network, batch):
    """One image broken or not: the others start, and end, as they would have."""
    x, y = batch
    shown = []

    class Recording(nn.Module):
        def forward(self, images):
            shown.append(images.detach())
            return network(images)

    starts = []
    for labels in (y, torch.cat([(y[:1] + 1) % 10, y[1:]])):
        shown.clear()
        torch.manual_seed(0)
        broken_by(wb.PGD(1e-3, steps=1, restarts=2), Attacked(network, Recording()), x, labels)
        starts.append([images.clone() for images in shown])
    assert [len(images) for images in starts[1]] == [len(x), len(x) - 1], "the first is broken at once"
    assert torch.equal(starts[0][1][1:], starts[1][1])


def test_the_copy_is_the_network_in_fewer_operations(network, batch):
    x, _ = batch
    target = attacked(network, x[:1])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in target.copy.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in target.network.modules())
    weights = [m.weight for m in target.copy.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[-1] > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights if w.shape[1] > 1)
    assert torch.allclose(target.copy(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("autoattack", ["never", "auto"])
def test_the_same_images_fall_as_without_a_copy(network, monkeypatch, autoattack):
    if autoattack == "auto":
        pytest.importorskip("pyautoattack")
        run_part = autoattack_adapter.run_part
        monkeypatch.setattr(autoattack_adapter, "run_part", lambda *a: run_part(*a[:-1], min(a[-1], 50)))
        parts = autoattack_adapter.parts
        monkeypatch.setattr(autoattack_adapter, "parts", lambda *a: (["apgd-ce", "square"], parts(*a)[1]))
    random_search = standard.random_search
    monkeypatch.setattr(standard, "QUERIES", 20)
    monkeypatch.setattr(standard, "random_search", lambda *a: random_search(*a, queries=20))
    data = wb.load_dataset("digits").take(2, 40).test
    options = {"eps": 0.6, "autoattack": autoattack}
    report = wb.evaluate_standard(network, data, **options)
    monkeypatch.setattr(standard, "attacked", lambda network, images: Attacked(network, network))
    assert wb.evaluate_standard(network, data, **options).fell_to == report.fell_to
    monkeypatch.setattr(standard, "broken_by", lambda pgd, target, x, y: broken_at_the_end(pgd, target.network, x, y))
    before = wb.evaluate_standard(network, data, **options)
    assert before.clean == report.clean
    for name, accuracy in before.robust.items():
        assert accuracy is None or report.robust[name].correct <= accuracy.correct
    assert sum(a != b for a, b in zip(before.fell_to, report.fell_to, strict=True)) <= 1
    assert report.masking.suspected == before.masking.suspected


def test_a_ball_of_its_own_is_searched(network, batch):
    broken = broken_by(wb.PGD(0.6, as_ball("l2"), 3, loss="margin"), attacked(network, batch[0]), *batch)
    assert bool(broken.any())
