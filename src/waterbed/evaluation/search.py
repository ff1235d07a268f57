"""Which images an attack breaks: searched for on a faster form of the network, decided by the network itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from waterbed.attacks.balls import as_ball
from waterbed.attacks.losses import Loss, as_loss
from waterbed.attacks.pgd import PGD
from waterbed.devices import memory_format
from waterbed.evaluation.accuracy import correct
from waterbed.models.folding import folded

# Images of the like of x (N, C, H, W), from a network, x and y (N,).
Search = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Attacked:
    """The network that decides whether an image is broken, and what attacks search on: its fast copy, or itself."""

    network: nn.Module
    copy: nn.Module


def attacked(network: nn.Module, images: Tensor) -> Attacked:
    """The network (frozen, in eval mode) with its copy in float32: batch norms folded into convolutions, weights in the
    fastest memory format. The copy was compared with the network on ``images`` (N, C, H, W) and equals it up to
    rounding; a network that cannot be folded is its own copy.

    >>> from waterbed.models.create import create_model
    >>> target = attacked(create_model("resnet10", 10, width=16).eval(), torch.rand(2, 3, 16, 16))
    >>> target.copy is target.network
    False
    """
    return Attacked(network, folded(network, images, memory_format=memory_format(network))())


def broken_after(search: Search, target: Attacked, x: Tensor, y: Tensor) -> Tensor:
    """Which images (N,) are misclassified by the network after ``search`` on its copy; what fools the copy alone is
    searched once more, on the network itself."""
    x_adv = search(target.copy, x, y)
    broken = ~correct(target.network, x_adv, y)
    if target.copy is not target.network:
        again = (~broken & ~correct(target.copy, x_adv, y)).nonzero().squeeze(1)
        if len(again):
            x_adv = search(target.network, x[again], y[again])
            broken[again] = ~correct(target.network, x_adv, y[again])
    return broken


def broken_by(pgd: PGD, target: Attacked, x: Tensor, y: Tensor) -> Tensor:
    """Which images (N,) the attack breaks: the network misclassifies one of the images it passes through.

    What the copy misclassifies is shown to the network, and leaves the attack if the network agrees; the last image of
    each run is shown to it in any case. So an image that the whole attack would break at its end is broken, others may
    be as well, and only those that stand pay for all steps and restarts.

    Args:
        pgd: steps along the steepest ascent of its loss (without ``optimizer``), untargeted.
        x, y: (N, C, H, W) in [0, 1] and (N,).
    """
    ball, of_labels = as_ball(pgd.norm), as_loss(pgd.loss)
    broken = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(pgd.restarts):
        # For all images, whichever are left: no image's start depends on what became of the others.
        start = (x + ball.random_start(x, pgd.eps)).clamp(0, 1) if pgd.random_start else x
        left = (~broken).nonzero().squeeze(1)
        images = start[left]
        for _ in range(pgd.steps):
            if not len(left):
                return broken
            gradient, suspected = _gradient(target.copy, images, y[left], of_labels)
            places = suspected.nonzero().squeeze(1)
            if len(places):
                found = places[~correct(target.network, images[places], y[left[places]])]
                broken[left[found]] = True
                standing = ~broken[left]
                left, images, gradient = left[standing], images[standing], gradient[standing]
            moved = images + pgd.config()["step_size"] * ball.direction(gradient)
            images = (x[left] + ball.project(moved - x[left], pgd.eps)).clamp(0, 1)
        if len(left):
            broken[left] = ~correct(target.network, images, y[left])
    return broken


def _gradient(model: nn.Module, images: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """The gradient of the summed loss at ``images`` (N, C, H, W), and which of them are misclassified, (N,)."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images)
        total = loss(logits, y).sum()
    (gradient,) = torch.autograd.grad(total, images)
    return gradient, logits.detach().argmax(1) != y
