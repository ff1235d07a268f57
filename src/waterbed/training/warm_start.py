"""ATTA: attacks that go on from the perturbation an image had in the epoch before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from waterbed.attacks.balls import as_ball, as_images
from waterbed.attacks.pgd import PGD
from waterbed.errors import UsageError, check_count, check_number
from waterbed.training.fast_objectives import InBall, ball_of, check_in_ball
from waterbed.training.objective import Forward, label_loss

FOLLOWED = ("auto", "crop-flip", "crop", "flip", "none")  # augmentations that move pixels and change none


class Follower(Protocol):
    """An objective that is told which training images are in a batch, and where each pixel of them came from."""

    def begin_batch(self, epoch: int, indices: Tensor, sources: Tensor, total: int) -> None:
        """Called before each batch.

        Args:
            epoch: from 0.
            indices: (B,) places of the images among the ``total`` of the training set.
            sources: (B, H W) for each pixel its place, from 1, in the image before augmentation; 0 for padding.
        """


@dataclass(frozen=True)
class ATTA:
    """Adversarial training whose attack starts, for every image, from the perturbation that it ended with in the epoch
    before, moved along with crops and flips. One or two steps then do the work of many.

    Zheng et al. (2020), "Efficient adversarial training with transferable adversarial examples". All perturbations are
    kept in half precision: 0.3 GB for CIFAR, which each saved state of a run has as well.

    Args:
        attack: gives eps and norm, and is what the network is watched under
            (:class:`~waterbed.training.fast_objectives.InBall`).
        steps: of the attack in training.
        step: their length in units of eps.
        reset: epochs after which all perturbations start again at random.

    >>> import waterbed as wb
    >>> ATTA(wb.PGD("8/255", "linf", steps=10), steps=2).config()["steps"]
    2
    """

    soft_labels = True
    attack: InBall
    steps: int = 1
    step: float = 0.5
    reset: int = 10
    memory: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """``deltas`` (N, C, H W) of the images, ``known`` (N,) whose are, ``epoch`` of the last batch."""
    batch: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_in_ball(self.attack)
        check_count("steps", self.steps)
        check_count("reset", self.reset)
        check_number("step", self.step, above=0)
        pgd = PGD(self.attack.eps, self.attack.norm, self.steps, step_size=self.step * self.attack.eps)
        object.__setattr__(self, "_pgd", pgd)

    def started_from(self, model: nn.Module) -> ATTA:
        """This objective without perturbations, for a training that starts."""
        return replace(self, memory={}, batch={})

    def begin_batch(self, epoch: int, indices: Tensor, sources: Tensor, total: int) -> None:
        """See :class:`Follower`."""
        if "known" not in self.memory:
            self.memory["known"] = torch.zeros(total, dtype=torch.bool, device=sources.device)
        if epoch % self.reset == 0 and epoch != self.memory.get("epoch", -1):
            self.memory["known"].zero_()
        self.memory["epoch"] = torch.tensor(epoch)
        self.batch.update(indices=indices.to(sources.device, non_blocking=True), sources=sources)

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x_adv = self._pgd.run_from(model, x, y, self._start(x))
        self._keep(x_adv - x)
        logits = forward(x_adv)
        return label_loss(logits, y), logits

    @torch.no_grad()
    def _start(self, x: Tensor) -> Tensor:
        """Perturbations (B, C, H, W) to begin with: at random for an image that has none."""
        ball, eps = as_ball(self.attack.norm), self.attack.eps
        delta = ball.random_start(x, eps)
        if not self.batch:
            return delta
        if "deltas" not in self.memory:
            shape = len(self.memory["known"]), x.shape[1], x[0, 0].numel()
            self.memory["deltas"] = torch.zeros(shape, dtype=torch.float16, device=x.device)
        indices, sources = self.batch["indices"], self.batch["sources"]
        moved = _padded(self.memory["deltas"][indices]).gather(2, _each(sources, x)).to(x).view_as(x)
        return torch.where(as_images(self.memory["known"][indices], x), ball.project(moved, eps), delta)

    @torch.no_grad()
    def _keep(self, delta: Tensor) -> None:
        """Put perturbations (B, C, H, W) back where their pixels came from; pixels that were cut off keep theirs."""
        if not self.batch:
            return
        indices, sources = self.batch["indices"], self.batch["sources"]
        deltas = self.memory["deltas"]
        # The first time, pixels that were cut off have none: zero.
        before = deltas[indices] * self.memory["known"][indices, None, None]
        after = _padded(before).scatter(2, _each(sources, delta), delta.flatten(2).to(deltas.dtype))
        deltas[indices] = after[:, :, 1:]
        self.memory["known"][indices] = True

    def state(self) -> dict[str, Tensor]:
        """What a run that is resumed needs of this objective."""
        return dict(self.memory)

    def restore(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Undo of :meth:`state`."""
        self.memory.update({name: t.to("cpu" if name == "epoch" else device) for name, t in state.items()})

    def config(self) -> dict[str, Any]:
        own = {"steps": self.steps, "step": float(self.step), "reset": self.reset}
        return {"name": "atta", **ball_of(self.attack), **own}


def followed(augmented: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Augmented images (B, C, H, W) and the sources (B, H W) of their pixels, with the random draws of ``augmented``.

    >>> followed(lambda x: x.flip(-1), torch.rand(1, 3, 1, 4))[1]
    tensor([[4, 3, 2, 1]])
    """
    n, channels, height, width = x.shape
    numbers = torch.arange(1, height * width + 1, device=x.device, dtype=x.dtype).view(1, 1, height, width)
    both = augmented(torch.cat([x, numbers.expand(n, 1, -1, -1)], 1))
    return both[:, :channels].contiguous(), both[:, channels].flatten(1).long()


def check_followed(config: Any) -> None:
    """Raise :class:`UsageError` for an augmentation that does more than move pixels."""
    others = ("randaugment", "color_jitter", "rotation", "lighting", "mixup", "cutmix")
    changing = [name for name in others if getattr(config, name)]
    if config.augment not in FOLLOWED:
        changing.insert(0, "augment")
    if changing:
        name = changing[0]
        raise UsageError(
            f"{name}={getattr(config, name)!r} changes pixels, and ATTA's perturbations can only move with them; pass "
            "augment='crop-flip' and leave the others out"
        )


def _padded(deltas: Tensor) -> Tensor:
    """A zero before the first pixel of (B, C, P): what padding has."""
    return torch.cat([torch.zeros_like(deltas[:, :, :1]), deltas], 2)


def _each(sources: Tensor, x: Tensor) -> Tensor:
    """Sources (B, P) for every channel of ``x``, (B, C, P)."""
    return sources[:, None].expand(-1, x.shape[1], -1)
