"""Clean and robust accuracy with Wilson intervals."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from scipy.stats import binomtest
from torch import Tensor, nn

from waterbed.attacks.attack import Attack, CheckedAttack, ball_of, check_attack
from waterbed.data.loading import batches
from waterbed.data.map_style import map_style, names_of
from waterbed.devices import device_of, seeded, seeded_generator
from waterbed.distributed import share, summed
from waterbed.errors import UsageError, UsageTypeError, UsageWarning, check_count, check_seed
from waterbed.evaluation.radii import CLEAN, by_radius
from waterbed.models.states import check_module, probe, unchanged
from waterbed.plots import curves_with_intervals, intervals
from waterbed.progress import Progress
from waterbed.tables import html_table


class Accuracy(float):
    """A percentage that knows its counts: ``low`` and ``high`` bound its 95 % Wilson interval.

    >>> a = Accuracy(90, 100)
    >>> print(a, a > 80)
    90.00 % [82.6, 94.5] True
    """

    correct: int
    n: int
    low: float
    high: float

    def __new__(cls, correct: int, n: int) -> Accuracy:
        self = super().__new__(cls, 100 * correct / n)
        interval = binomtest(correct, n).proportion_ci(confidence_level=0.95, method="wilson")
        self.correct, self.n = correct, n
        self.low, self.high = 100 * float(interval.low), 100 * float(interval.high)
        return self

    def __getnewargs__(self) -> tuple[int, int]:
        return self.correct, self.n

    def __str__(self) -> str:
        return f"{float(self):.2f} % [{self.low:.1f}, {self.high:.1f}]"

    __repr__ = __str__  # in a dict, too, a number shows its interval

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, in percent."""
        return {
            "value": float(self),
            "low": self.low,
            "high": self.high,
            "correct": self.correct,
            "n": self.n,
        }


@dataclass(frozen=True)
class Score:
    """The result of :func:`evaluate`; accuracies in percent.

    ``robust`` has one entry per attack, by its name, in the order they were given: an image counts if it is
    classified correctly both as it is and under the attack. ``mean_per_class`` is the clean accuracy averaged over
    the classes that occur. ``outside``, by the name of an attack, is how many of its images left the ball it was
    given (:func:`waterbed.as_attack`), if any did; they count as not broken.
    """

    clean: Accuracy
    robust: dict[str, Accuracy]
    n: int
    mean_per_class: float
    outside: dict[str, int] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return {
            "clean": self.clean.to_dict(),
            "robust": {name: accuracy.to_dict() for name, accuracy in self.robust.items()},
            "mean_per_class": self.mean_per_class,
            "n": self.n,
            **({"outside": self.outside} if self.outside else {}),
        }

    def plot(self) -> Figure:
        """Accuracy against the radius where an attack was run at two or more, else one line per attack; 95 %
        intervals."""
        return accuracies_figure({CLEAN: self.clean, **self.robust})

    def _repr_html_(self) -> str:
        rows = [("clean", self.clean), ("clean, mean per class", f"{self.mean_per_class:.2f} %"), *self.robust.items()]
        return html_table(["accuracy", "95 % interval"], rows, f"Score on {self.n} images")


def accuracies_figure(accuracies: Mapping[str, Accuracy | None]) -> Figure:
    """Accuracies by attack: curves over eps for attacks that were run at two radii or more, else a line for each."""
    known = {name: accuracy for name, accuracy in accuracies.items() if accuracy is not None}
    kinds = by_radius(known)
    if kinds:
        curves = {kind: [(eps, float(a), a.low, a.high) for eps, a in points.items()] for kind, points in kinds.items()}
        return curves_with_intervals(curves, "eps", "accuracy [%]")
    return intervals(list(known), {"accuracy [%]": [(float(a), a.low, a.high) for a in known.values()]})


def evaluate(
    model: nn.Module,
    dataset: Any,
    attacks: Sequence[Attack] = (),
    batch_size: int = 256,
    num_samples: int | None = None,
    seed: int = 0,
    progress: bool = False,
    workers: int = 0,
) -> Score:
    """Clean accuracy, and robust accuracy under each attack, in fp32 and eval mode.

    :func:`waterbed.evaluate_standard` runs stronger attacks and looks for gradient masking. The model's
    modes and buffers are bit for bit the same afterwards.

    Args:
        model: images in [0, 1] (N, C, H, W) to logits (N, K).
        dataset: map-style, ``(image, label)``; of a ``DataLoader`` its data set is read. Or a Hugging Face ``Dataset``
            with a column of labels and one of images, brought to the shape the model was trained with.
        attacks: :class:`waterbed.PGD`, :func:`waterbed.as_attack` of any other, or a user's own
            (:class:`~waterbed.attacks.attack.Attack`), of different names. Only the images that the model classifies
            correctly are attacked. Images outside a ball that is known count as not broken, and a warning says so.
        num_samples: evaluate on that many examples, drawn with ``seed``; all by default.
        seed: of the attacks' random starts and of the choice of examples.
        workers: number of processes that load images, for data too large for memory.

    Raises:
        UsageError: images that do not fit, labels out of range, other classes than the model's where both are named,
            weights that are not finite; an attack that returns
            something else than images in [0, 1] like those it was given.
        UsageTypeError: ``attacks`` is not a list of attacks, ``dataset`` not a map-style data set.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> data = [(torch.rand(1, 2, 2), 0) for _ in range(3)]
    >>> evaluate(model, data).n
    3
    """
    check_count("batch_size", batch_size)
    check_seed("seed", seed)
    check_count("workers", workers, at_least=0)
    attacks = _checked_list(attacks)
    dataset = check_dataset(dataset, model)
    if num_samples is not None:
        check_count("num_samples", num_samples)
    total = len(dataset)
    order = torch.arange(total)
    if num_samples is not None and num_samples < total:
        order = torch.randperm(total, generator=seeded_generator(seed))[:num_samples]
    device = device_of(model)
    checked = [CheckedAttack(attack) for attack in attacks]
    labels = torch.zeros(len(order), dtype=torch.long)
    # One row for the clean images and one per attack, read from the device once, at the end.
    hits = torch.zeros(1 + len(attacks), len(order), dtype=torch.bool, device=device)
    outside = torch.zeros(len(attacks), dtype=torch.long, device=device)
    classes = None
    with unchanged(model), Progress("evaluating", len(order), progress) as progress_bar:
        parts = share([slice(i, min(i + batch_size, len(order))) for i in range(0, len(order), batch_size)])
        mine = torch.cat([order[part] for part in parts]) if parts else order[:0]  # all but the last are full
        drawn = batches(dataset, batch_size, order=mine, seed=seed, workers=workers, device=device)
        for part, (x, y) in zip(parts, drawn, strict=True):
            if classes is None:
                classes = probe(model, x[:1], "dataset images").shape[1]
                check_names(model, dataset, classes)
            check_range(y, classes)
            labels[part] = y
            y = y.to(device)
            hits[0, part] = correct(model, x, y)
            if checked:
                _attack(checked, model, x, y, hits[:, part], outside, seed * 1_000_003 + part.start)
            clean = f"clean {100 * float(hits[0, part].double().mean()):.1f} %" if progress_bar.enabled else ""
            progress_bar.advance(len(x), clean)
    for attack in checked:
        attack.check_values()
    labels = summed(labels.to(device)).cpu()
    clean, *robust = summed(hits.long()).cpu().bool()
    counts = dict(zip((a.name for a in attacks), summed(outside).tolist(), strict=True))
    for attack in attacks:
        if counts[attack.name]:
            warnings.warn(
                f"attack {attack.name!r} returned {counts[attack.name]} of {int(clean.sum())} images outside its ball "
                f"({ball_of(attack)}); they count as not broken",
                UsageWarning,
                stacklevel=2,
            )
    score = _score(clean, labels, {a.name: int(hit.sum()) for a, hit in zip(attacks, robust, strict=True)})
    return replace(score, outside={name: count for name, count in counts.items() if count})


def _attack(
    attacks: Iterable[CheckedAttack], model: nn.Module, x: Tensor, y: Tensor, hits: Tensor, outside: Tensor, seed: int
) -> None:
    """Fill the rows of ``hits`` (1 + attacks, B) after the first, which says where the clean image is right, and add to
    ``outside`` (attacks,) how many images left the ball of each.

    Seeded by the batch's position, so that no image depends on which process or how many have it.
    """
    indices = hits[0].nonzero().squeeze(1)
    if len(indices) == 0:
        return
    x, y = x[indices], y[indices]
    with seeded(seed, x.device):
        for row, attack in enumerate(attacks, 1):
            x_adv, left = attack.with_outside(model, x, y)
            hits[row, indices] = correct(model, x_adv, y) | left
            outside[row - 1] += left.sum()


def score_of(predicted: Tensor, labels: Tensor) -> Score:
    """The clean score of predicted classes (N,).

    >>> score_of(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])).mean_per_class
    75.0
    """
    return _score(predicted == labels, labels, {})


def _score(hit: Tensor, label: Tensor, robust: dict[str, int]) -> Score:
    per_class = [hit[label == c].double().mean() for c in label.unique()]
    return Score(
        clean=Accuracy(int(hit.sum()), len(hit)),
        robust={name: Accuracy(count, len(hit)) for name, count in robust.items()},
        n=len(hit),
        mean_per_class=100 * float(torch.stack(per_class).mean()),
    )


@torch.no_grad()
def correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(N,) whether the model predicts the class (N,) of each image (N, C, H, W), in its present mode; NaN is wrong."""
    logits = model(x)
    return (logits.argmax(1) == y) & ~logits.isnan().any(1)


def _checked_list(attacks: Any) -> list[Attack]:
    """``attacks`` as a list; raise unless they are attacks with names that differ."""
    if isinstance(attacks, type | str) or callable(attacks) or not isinstance(attacks, Iterable):
        raise UsageTypeError(f"attacks={attacks!r} must be a list of attacks; write attacks=[PGD(eps=0.5)]")
    attacks = list(attacks)
    for i, attack in enumerate(attacks):
        check_attack(attack, f"attacks[{i}]")
    names = [attack.name for attack in attacks]
    if len(set(names)) < len(names):
        raise UsageError(f"attacks has two named {max(names, key=names.count)!r}; make them differ, or pass one")
    return attacks


def check_dataset(dataset: Any, model: nn.Module) -> Any:
    """The data set, of a DataLoader the one it reads, of a Hugging Face ``Dataset`` its images in the model's shape;
    raise unless it is map-style and has images."""
    check_module(model)
    if hasattr(dataset, "test"):
        raise UsageTypeError(f"dataset={type(dataset).__name__} must be a map-style data set, such as data.test")
    dataset = map_style(dataset, shape=getattr(model, "input_shape", None))
    if len(dataset) == 0:
        raise UsageError("dataset is empty; pass one with images")
    return dataset


def check_names(model: nn.Module, dataset: Any, classes: int) -> None:
    """Raise if the data set names other classes than the model was trained for, or another number of them.

    Numbers are no names, and case and underscores make no difference.
    """
    names = names_of(dataset)
    if names is None or _are_numbers(names):
        return
    if len(names) != classes:
        raise UsageError(
            f"dataset has {len(names)} classes ({', '.join(names[:3])}, ...), but the model knows {classes}; evaluate "
            "it on the classes it was trained for, or finetune it"
        )
    known = getattr(model, "class_names", None)
    if known is None or _are_numbers(known) or [_plain(n) for n in known] == [_plain(n) for n in names]:
        return
    place = next(i for i, (a, b) in enumerate(zip(known, names, strict=True)) if _plain(a) != _plain(b))
    raise UsageError(
        f"dataset calls class {place} {names[place]!r}, but the model was trained with {known[place]!r} there; give "
        "the classes the same names in the same order, or finetune the model"
    )


def _are_numbers(names: Sequence[str]) -> bool:
    return list(names) == [str(i) for i in range(len(names))]


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()


def check_range(y: Tensor, classes: int) -> None:
    """Raise unless the labels (N,) are among the model's classes."""
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise UsageError(
            f"dataset has labels from {int(y.min())} to {int(y.max())}, but the model knows 0 .. {classes - 1}; "
            "evaluate it on the classes it was trained for"
        )
