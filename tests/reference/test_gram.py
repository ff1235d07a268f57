"""R diag(v) R^T of the weights' gradients without the rows: against the rows."""

import pytest
import torch
from tests.conftest import make_convnet, make_mlp
from torch import nn

from waterbed.information import per_example_gram as gram
from waterbed.information.per_example import WeightRows
from waterbed.information.per_example_gram import weighted_gram
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.create import create_model


class Sequence(nn.Module):
    """A Linear layer used at several positions."""

    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.Linear(3, 7), nn.Linear(7, 6)

    def forward(self, x):
        return self.out(self.mix(x).tanh().mean(1))


class Twice(nn.Module):
    """A Linear layer called twice."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(5, 5)

    def forward(self, x):
        return self.mix(self.mix(x).tanh())


def grouped():
    layers = [nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 5, 3)]
    return FeatureClassifier(nn.Sequential(*layers, nn.Flatten()), nn.Linear(20, 3))


CASES = {
    "mlp": (make_mlp, (4,)),
    "convnet": (make_convnet, (1, 6, 6)),
    "resnet": (lambda: create_model("resnet10", num_classes=4, width=4), (3, 16, 16)),
    "groups": (grouped, (4, 8, 8)),
    "sequence": (lambda: FeatureClassifier(Sequence(), nn.Linear(6, 3)), (5, 3)),
    "twice": (lambda: FeatureClassifier(Twice(), nn.Linear(5, 3)), (5,)),
}


@pytest.mark.parametrize("block", [7, 2**15])
@pytest.mark.parametrize("method", ["layers", "vmap"])
@pytest.mark.parametrize("case", CASES)
def test_weighted_gram_equals_the_rows(case, method, block, monkeypatch):
    monkeypatch.setattr(gram, "BLOCK", block)
    make, shape = CASES[case]
    model = make().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(3, *shape, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters() if not name.startswith("head")]
    rows = WeightRows(model, names, x[:1], "features", method)
    variance = {name: torch.rand_like(p) for name, p in model.named_parameters() if name in names}
    v = torch.randn(3, model.features(x).shape[1], 4, dtype=torch.float64)

    found = weighted_gram(rows, x, lambda _: v, variance)

    expected = torch.zeros(3, 4, 4, dtype=torch.float64)
    for one in range(3):
        for column in range(4):
            total = (model.features(x[one : one + 1])[0] * v[one, :, column]).sum()
            gradients = torch.autograd.grad(total, [dict(model.named_parameters())[n] for n in names])
            for other in range(4):
                total = (model.features(x[one : one + 1])[0] * v[one, :, other]).sum()
                others = torch.autograd.grad(total, [dict(model.named_parameters())[n] for n in names])
                expected[one, column, other] = sum(
                    (variance[n] * a * b).sum() for n, a, b in zip(names, gradients, others, strict=True)
                )
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_both_ways_are_taken(monkeypatch):
    """A residual network has layers of many positions, done by rows, and of few, done without."""
    model = create_model("resnet10", num_classes=4, width=4).double().eval()
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters() if name.endswith("weight") and not name.startswith("head")]
    rows = WeightRows(model, names, x, "features", "layers")
    taken = []
    chosen = gram._by_positions
    monkeypatch.setattr(gram, "_by_positions", lambda *a: taken.append(chosen(*a)) or taken[-1])
    eye = torch.eye(model.features(x).shape[1], dtype=torch.float64)
    weighted_gram(rows, x, lambda o: eye.expand(len(o), *eye.shape), dict(model.named_parameters()))
    assert set(taken) == {True, False}
