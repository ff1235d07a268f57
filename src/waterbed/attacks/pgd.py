"""Projected gradient descent inside a ball: l1, l2, linf or a user's own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.attacks.attack import PerExampleLoss, batch_is_checked
from waterbed.attacks.balls import Ball, as_ball, as_images
from waterbed.attacks.losses import Loss, as_loss, loss_name
from waterbed.attacks.radius import parse_eps
from waterbed.attacks.steps import SteepestAscent, StepRuleFactory, describe
from waterbed.data.images import check_images, check_labels
from waterbed.errors import UsageError, UsageTypeError, check_count, check_number
from waterbed.models.states import check_module, frozen, probe


@dataclass(frozen=True, repr=False)
class PGD:
    """Maximise the loss over ``|delta| <= eps``, images staying in [0, 1]: the inner problem of eq. 1.

    Madry et al. (2018), "Towards deep learning models resistant to adversarial attacks". The model runs in
    eval mode (its mode is restored, also after an exception) and only input gradients are computed.

    Args:
        eps: radius of the ball, in pixel units ([0, 1]), a number or text such as "8/255". More than 1 in linf warns.
        norm: "l1" (:class:`~waterbed.attacks.balls.L1`), "l2", "linf", or an object with ``name``, ``project``,
            ``direction`` and ``random_start`` (:class:`~waterbed.attacks.balls.Ball`).
        steps: gradient steps of one run.
        step_size: length of a step in the same norm; None is 2.5 eps / steps.
        random_start: start uniformly in the ball instead of at the image.
        restarts: independent runs; each image keeps its worst one (misclassified first, then the highest loss).
        optimizer: what moves the images before each projection, made anew for every run from a list of one tensor
            (N, C, H, W) whose ``.grad`` is the gradient of the loss: ``lambda images: torch.optim.Adam(images, lr=0.01,
            maximize=True)``, or any callable whose result has ``step()``. None steps by ``step_size`` along the
            steepest ascent of the norm.
        targeted: descend the loss towards the labels that are given, each the class an image is to get, instead of
            ascending it. Training and evaluation give the true labels and refuse it; there write
            ``as_attack(lambda model, x, y: attack(model, x, targets(y)), name="targeted")``.
        loss: what is ascended: "cross-entropy", "margin" (the largest other logit less that of the label), or a
            function of logits (N, K) and labels (N,) that gives one number for each image.

    Raises:
        UsageError: a value out of range, an unknown norm, settings that contradict each other.
        UsageTypeError: a value of a wrong type, a ball that lacks a method, an ``optimizer`` without steps.

    >>> attack = PGD(eps=0.5, steps=3)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.long)
    >>> x_adv = attack(model, x, y)
    >>> bool(((x_adv - x).flatten(1).norm(dim=1) <= 0.5 + 1e-6).all())
    True
    """

    eps: float = 1.0
    norm: str | Ball = "l2"
    steps: int = 7
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    optimizer: StepRuleFactory | None = None
    targeted: bool = False
    loss: str | Loss = "cross-entropy"

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", parse_eps(self.eps, norm=as_ball(self.norm).name))
        as_loss(self.loss)
        if not isinstance(self.targeted, bool):
            raise UsageTypeError(f"targeted={self.targeted!r} must be True or False; the targets are the labels given")
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        if self.step_size is not None:
            check_number("step_size", self.step_size, above=0)
        if self.restarts > 1 and not self.random_start:
            raise UsageError(
                f"restarts={self.restarts} with random_start=False repeats one run; pass random_start=True"
            )
        if self.optimizer is not None:
            describe(self.optimizer)
            if self.step_size is not None:
                raise UsageError(f"step_size={self.step_size!r} is of the default steps; give optimizer its lr instead")

    def __repr__(self) -> str:
        """Without what came later and has its default: files of results compare what was written before."""
        first = ("eps", "norm", "steps", "step_size", "random_start", "restarts")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values = {f.name: values[f.name] for f in fields(self) if f.name in first or values[f.name] != f.default}
        if self.optimizer is not None:
            values["optimizer"] = describe(self.optimizer)
        if "loss" in values:
            values["loss"] = loss_name(self.loss)
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    @property
    def name(self) -> str:
        """Such as ``pgd-20 l2 eps=0.5``; the key under which ``evaluate`` reports it."""
        restarts = f" x{self.restarts}" if self.restarts > 1 else ""
        optimizer = f" {describe(self.optimizer)['name']}" if self.optimizer is not None else ""
        loss = f" {loss_name(self.loss)}" if self.loss != "cross-entropy" else ""
        targeted = " targeted" if self.targeted else ""
        return f"pgd-{self.steps}{restarts}{optimizer}{loss}{targeted} {as_ball(self.norm).name} eps={self.eps:g}"

    def config(self) -> dict[str, Any]:
        """What a run folder records of it."""
        length = {"step_size": float(self._step_size)} if self.optimizer is None else {}
        return {
            "eps": float(self.eps),
            "norm": as_ball(self.norm).name,
            "steps": self.steps,
            **length,
            "random_start": self.random_start,
            "restarts": self.restarts,
            **({} if self.optimizer is None else {"optimizer": describe(self.optimizer)}),
            **({"targeted": True} if self.targeted else {}),
            **({} if self.loss == "cross-entropy" else {"loss": loss_name(self.loss)}),
        }

    @property
    def soft_labels(self) -> bool:
        """Whether labels may be probabilities (N, K): the cross-entropy has a meaning for them."""
        return self.loss == "cross-entropy" and not self.targeted

    @property
    def _step_size(self) -> float:
        return 2.5 * self.eps / self.steps if self.step_size is None else self.step_size

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, C, H, W) in [0, 1] with labels ``y`` (N,); if targeted, the classes
        wanted. With the cross-entropy, ``y`` may also be probabilities (N, K)."""
        if not batch_is_checked():
            check_module(model)
            check_images(x, "x")
            self._check_labels(y, torch.iinfo(torch.int64).max)
        try:
            with frozen(model):
                return self._worst(model, x, y)
        except (RuntimeError, IndexError):
            classes = probe(model, x, "x").shape[1]  # says so if it is the shape
            self._check_labels(y, classes)
            raise

    def _check_labels(self, y: Any, classes: int) -> None:
        """Raise unless ``y`` are classes, or probabilities where the loss takes them."""
        if not (self.soft_labels and isinstance(y, Tensor) and y.is_floating_point() and y.ndim == 2):
            check_labels(y, classes, "y")

    def _worst(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """For each image the worst result of the restarts."""

        of_labels = as_loss(self.loss)

        def loss(logits: Tensor) -> Tensor:
            return -of_labels(logits, y) if self.targeted else of_labels(logits, y)

        worst = self._run(model, x, loss)
        if self.restarts == 1:
            return worst
        reached, highest = self._rank(model, worst, y, loss)
        for _ in range(self.restarts - 1):
            x_adv = self._run(model, x, loss)
            breaks, value = self._rank(model, x_adv, y, loss)
            worse = (breaks & ~reached) | ((breaks == reached) & (value > highest))
            worst = torch.where(as_images(worse, x), x_adv, worst)
            reached, highest = reached | breaks, torch.where(worse, value, highest)
        return worst

    @torch.no_grad()
    def _rank(self, model: nn.Module, x: Tensor, y: Tensor, loss: PerExampleLoss) -> tuple[Tensor, Tensor]:
        """How bad an adversarial image is for the model: any that does what it is for above any other, then by loss."""
        logits = model(x)
        predicted, y = logits.argmax(1), y if y.ndim == 1 else y.argmax(1)
        return predicted == y if self.targeted else predicted != y, loss(logits)

    def maximise(self, model: nn.Module, x: Tensor, loss: PerExampleLoss) -> Tensor:
        """One run that ascends any loss of the logits, (N, K) -> (N,), inside the same ball."""
        with frozen(model):
            return self._run(model, x, loss)

    def run_from(self, model: nn.Module, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        """One run that starts at ``x + delta``, both (N, C, H, W), instead of at random."""
        of_labels = as_loss(self.loss)
        with frozen(model):
            return self._run(model, x, lambda logits: of_labels(logits, y) * (-1 if self.targeted else 1), delta)

    def _run(self, model: nn.Module, x: Tensor, loss: PerExampleLoss, delta: Tensor | None = None) -> Tensor:
        ball = as_ball(self.norm)
        x = x.detach()
        if delta is None and self.random_start:
            delta = ball.random_start(x, self.eps)
        x_adv = x.clone() if delta is None else (x + delta).clamp(0, 1)
        make = self.optimizer or partial(SteepestAscent, ball=ball, step_size=self._step_size)
        rule = make([x_adv])
        for _ in range(self.steps):
            # Another tensor each step: autocast would go on using the bfloat16 copy it made of the first.
            images = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                total = loss(model(images)).sum()
            (x_adv.grad,) = torch.autograd.grad(total, images)
            rule.step()
            with torch.no_grad():
                # Clamping to [0, 1] moves each pixel towards x, so the image stays in the ball.
                x_adv.copy_((x + ball.project(x_adv - x, self.eps)).clamp(0, 1))
        return x_adv.detach()
