"""The folded network that attacks see is the network itself, in fewer operations."""

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.models.folding import folded


def trained_looking(name, stem="cifar"):
    """A network whose batch norms have statistics and weights of their own."""
    model = wb.create_model(name, 10, stem=stem, width=4, seed=0).double()
    model.set_normalisation([0.4] * 3, [0.2] * 3)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return model


def images(side=16):
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(2)).double()


def input_gradient(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).logsumexp(1).sum(), x)[0]


@pytest.mark.parametrize(("name", "stem"), [("resnet18", "cifar"), ("resnet50", "cifar"), ("resnet18", "imagenet")])
def test_equal_to_the_model_in_value_and_gradient_and_without_batch_norm(name, stem):
    model = trained_looking(name, stem)
    x = images(16 if stem == "cifar" else 64)
    fast = folded(model, x)()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    model.eval()
    assert torch.allclose(fast(x), model(x), rtol=1e-10)
    assert torch.allclose(input_gradient(fast, x), input_gradient(model, x), rtol=1e-8, atol=1e-12)


def test_follows_the_weights_and_leaves_the_model_alone():
    model = trained_looking("resnet10").train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    current = folded(model, images())
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.1)
        model.backbone.bn1.running_mean.add_(0.3)
    model.eval()
    assert torch.allclose(current()(images()), model(images()), rtol=1e-10)


def test_an_attack_on_it_finds_what_an_attack_on_the_model_finds():
    model = trained_looking("resnet10")
    x, y = images(), torch.tensor([0, 1, 2])
    attack = wb.PGD(eps=0.5, steps=3, random_start=False)
    assert torch.allclose(attack(folded(model, x)(), x, y), attack(model, x, y), atol=1e-9)


class Branching(nn.Module):
    """Its path depends on values, so that no trace of it is right for all."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)

    def forward(self, x):
        z = self.bn(self.conv(x)).mean((2, 3))
        return self.head(z if float(x.mean()) > 0 else -z)


class Stateful(nn.Module):
    """A batch norm used twice, one convolution with a hook, and one with dropout after it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.twice, self.once = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(3, 2)
        self.b.register_forward_hook(lambda module, args, out: 2 * out)

    def forward(self, x):
        x = self.twice(self.b(self.twice(self.a(x))))
        return self.head(self.drop(self.once(self.c(x))).mean((2, 3)))


def test_a_network_that_cannot_be_traced_is_used_as_it_is():
    model = Branching()
    assert folded(model, images(8).float())() is model


def test_only_what_is_safe_is_folded():
    torch.manual_seed(0)
    model = Stateful().double()
    for _ in range(3):
        model(images(8))  # statistics of its own
    fast = folded(model, images(8))()
    assert sum(isinstance(m, nn.BatchNorm2d) for m in fast.modules()) == 1
    model.eval()
    assert torch.allclose(fast.eval()(images(8)), model(images(8)), rtol=1e-10)


def test_reduced_weights_are_close():
    model = trained_looking("resnet10").float().eval()
    x = images().float()
    fast = folded(model, x, torch.bfloat16)()
    with torch.autocast("cpu", torch.bfloat16):
        got = fast(x)
    assert got.dtype == torch.bfloat16
    assert (got.float() - model(x)).norm() < 0.02 * model(x).norm()
