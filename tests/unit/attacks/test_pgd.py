import pytest
import torch
from torch import nn

import waterbed as wb


def norms(delta, norm):
    flat = delta.flatten(1)
    return flat.norm(dim=1) if norm == "l2" else flat.abs().amax(1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_stays_in_ball_and_box_and_raises_the_loss(tiny, norm):
    x, y = torch.rand(16, 1, 8, 8), torch.randint(10, (16,))
    attack = wb.PGD(eps=0.3 if norm == "l2" else 0.05, norm=norm, steps=5)
    x_adv = attack(tiny, x, y)
    assert float(norms(x_adv - x, norm).max()) <= attack.eps * (1 + 1e-5)
    assert float(x_adv.min()) >= 0
    assert float(x_adv.max()) <= 1
    loss = nn.CrossEntropyLoss(reduction="none")
    assert bool((loss(tiny(x_adv), y) > loss(tiny(x), y)).all())


def test_linear_model_is_attacked_optimally():
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2, dtype=torch.float64))
    x, y = torch.full((4, 1, 3, 3), 0.5, dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    x_adv = wb.PGD(eps=0.2, steps=40, step_size=0.2)(model, x, y)
    w = model[1].weight.detach()
    direction = (w[1 - y] - w[y]) / (w[1] - w[0]).norm()
    assert torch.allclose((x_adv - x).flatten(1), 0.2 * direction, atol=1e-3)


def test_random_start_is_uniform_in_the_ball():
    from waterbed.attacks.balls import L2

    x = torch.zeros(20_000, 1, 1, 3)
    start = L2().random_start(x, 2.0).flatten(1)
    radius = start.norm(dim=1) / 2
    # Uniform in a ball of R^3: the cube of the radius is uniform on [0, 1], the mean is 0.
    assert float((radius**3).mean()) == pytest.approx(0.5, abs=0.01)
    assert float((radius**3).var()) == pytest.approx(1 / 12, abs=0.005)
    assert float(start.mean(0).abs().max()) < 0.03
    assert float(radius.max()) <= 1


def test_restarts_start_anew_and_only_help(tiny):
    x, y = torch.rand(64, 1, 8, 8), torch.randint(10, (64,))
    loss = nn.CrossEntropyLoss(reduction="none")
    torch.manual_seed(5)
    once = wb.PGD(eps=0.3, steps=1)(tiny, x, y)
    torch.manual_seed(5)
    five = wb.PGD(eps=0.3, steps=1, restarts=5)(tiny, x, y)
    right_once, right_five = ((tiny(a).argmax(1) == y) for a in (once, five))
    assert not bool((right_five & ~right_once).any()), "an image that was broken stays broken"
    same = right_once == right_five
    assert bool((loss(tiny(five), y) >= loss(tiny(once), y) - 1e-6)[same].all())
    assert int((five != once).flatten(1).any(1).sum()) > 32, "most images do better from another start"


def test_zero_and_tiny_gradients_give_finite_images():
    constant = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    nn.init.zeros_(constant[1].weight)
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long)
    assert torch.equal(wb.PGD(eps=1.0, random_start=False)(constant, x, y), x)
    nn.init.constant_(constant[1].weight[0], 1e-30)
    moved = wb.PGD(eps=0.1, steps=3, random_start=False)(constant, x, y)
    assert bool(torch.isfinite(moved).all())
    assert float((moved - x).flatten(1).norm(dim=1).min()) > 0.05, "a tiny gradient still has a direction"


def test_eps_zero_returns_the_images(tiny):
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    assert torch.equal(wb.PGD(eps=0)(tiny, x, y), x)


def test_weights_and_modes_and_statistics_are_untouched(tiny):
    tiny.train()
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    wb.PGD(eps=0.5, steps=2, restarts=2)(tiny, torch.rand(4, 1, 8, 8), torch.arange(4))
    assert all(torch.equal(v, before[k]) for k, v in tiny.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in tiny.parameters())
    assert all(m.training for m in tiny.modules())


def test_no_weight_gradient_is_computed(tiny):
    seen = []

    def hook(module, args, output):
        seen.extend(p.requires_grad for p in module.parameters())

    handle = tiny.head.register_forward_hook(hook)
    wb.PGD(eps=0.5, steps=1)(tiny, torch.rand(2, 1, 8, 8), torch.arange(2))
    handle.remove()
    assert seen
    assert not any(seen)


def test_pixels_and_labels_are_checked(tiny):
    x = torch.rand(2, 1, 8, 8)
    for images, labels, match in (
        (255 * x, torch.arange(2), "divide 8-bit"),
        (x, torch.tensor([0, 10]), "0 .. 9"),
        (x, torch.tensor([-1, 1]), "-1"),
    ):
        with pytest.raises(wb.UsageError, match=match):
            wb.PGD()(tiny, images, labels)
    with pytest.raises(wb.UsageError, match="random_start"):
        wb.PGD(random_start=False, restarts=2)


def test_mode_comes_back_after_a_failure(tiny):
    tiny.train()
    with pytest.raises(wb.UsageError, match="3, 8, 8"):
        wb.PGD()(tiny, torch.rand(2, 3, 8, 8), torch.arange(2))
    assert tiny.training
    assert tiny.head.weight.requires_grad
