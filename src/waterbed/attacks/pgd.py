"""Projected gradient descent inside an l2 or linf ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.attacks.balls import as_ball
from waterbed.data.images import check_images, check_labels
from waterbed.errors import UsageError, check_count, check_number
from waterbed.models.states import frozen, probe

# Loss of each example, (N, K) logits -> (N,).
PerExampleLoss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PGD:
    """Maximise the loss over ``|delta| <= eps``, images staying in [0, 1]: the inner problem of eq. 1.

    Madry et al. (2018), "Towards deep learning models resistant to adversarial attacks". The model runs in
    eval mode (its mode is restored, also after an exception) and only input gradients are computed.

    Args:
        eps: radius of the ball, in pixel units ([0, 1]).
        norm: "l2" or "linf".
        steps: gradient steps of one run.
        step_size: length of a step in the same norm; None is 2.5 eps / steps.
        random_start: start uniformly in the ball instead of at the image.
        restarts: independent runs; each image keeps its worst one (misclassified first, then the highest loss).

    >>> attack = PGD(eps=0.5, steps=3)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.long)
    >>> x_adv = attack(model, x, y)
    >>> bool(((x_adv - x).flatten(1).norm(dim=1) <= 0.5 + 1e-6).all())
    True
    """

    eps: float = 1.0
    norm: str = "l2"
    steps: int = 7
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        check_number("eps", self.eps, at_least=0)
        as_ball(self.norm)
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        if self.step_size is not None:
            check_number("step_size", self.step_size, above=0)
        if self.restarts > 1 and not self.random_start:
            raise UsageError(
                f"restarts={self.restarts} with random_start=False repeats one run; pass random_start=True"
            )

    @property
    def name(self) -> str:
        """Such as ``pgd-20 l2 eps=0.5``; the key under which ``evaluate`` reports it."""
        restarts = f" x{self.restarts}" if self.restarts > 1 else ""
        return f"pgd-{self.steps}{restarts} {self.norm} eps={self.eps:g}"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, C, H, W) in [0, 1] with labels ``y`` (N,)."""
        check_images(x, "x")
        check_labels(y, torch.iinfo(torch.int64).max, "y")
        try:
            return self._worst(model, x, y)
        except (RuntimeError, IndexError):
            classes = probe(model, x, "x").shape[1]  # says so if it is the shape
            check_labels(y, classes, "y")
            raise

    def _worst(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with frozen(model):
            best = self._run(model, x, lambda logits: _cross_entropy(logits, y))
            if self.restarts == 1:
                return best
            best_rank = _rank(model, best, y)
            for _ in range(self.restarts - 1):
                again = self._run(model, x, lambda logits: _cross_entropy(logits, y))
                rank = _rank(model, again, y)
                worse = rank > best_rank
                best = torch.where(_as(worse, x), again, best)
                best_rank = torch.maximum(rank, best_rank)
        return best

    def maximise(self, model: nn.Module, x: Tensor, loss: PerExampleLoss) -> Tensor:
        """One run that ascends any loss of the logits, (N, K) -> (N,), inside the same ball."""
        with frozen(model):
            return self._run(model, x, loss)

    def _run(self, model: nn.Module, x: Tensor, loss: PerExampleLoss) -> Tensor:
        ball = as_ball(self.norm)
        step_size = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        x = x.detach()
        x_adv = (x + ball.random_start(x, self.eps)).clamp(0, 1) if self.random_start else x.clone()
        for _ in range(self.steps):
            x_adv.requires_grad_()
            with torch.enable_grad():
                total = loss(model(x_adv)).sum()
            (gradient,) = torch.autograd.grad(total, x_adv)
            delta = x_adv.detach() + step_size * ball.direction(gradient) - x
            # Clamping to [0, 1] moves each pixel towards x, so the image stays in the ball.
            x_adv = (x + ball.project(delta, self.eps)).clamp(0, 1)
        return x_adv


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.float() if logits.dtype == torch.bfloat16 else logits, y, reduction="none")


@torch.no_grad()
def _rank(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """How bad an adversarial image is for the model: any misclassified one above any other, then by loss."""
    logits = model(x)
    loss = _cross_entropy(logits, y).double()
    return torch.sigmoid(loss.log()) + (logits.argmax(1) != y)


def _as(values: Tensor, x: Tensor) -> Tensor:
    """(N,) shaped to broadcast against (N, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))
