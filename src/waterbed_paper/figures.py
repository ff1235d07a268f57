"""The paper's figures with our results: what each shows, what is drawn, and which experiments are behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from waterbed.plots import save_figure
from waterbed.reporting.page import Picture
from waterbed_paper import figures_information as information
from waterbed_paper import figures_inversion as inversion
from waterbed_paper import figures_transfer as transfer
from waterbed_paper.drawing import described
from waterbed_paper.found import Found
from waterbed_paper.nodes import EVALUATED

SEEDS = "Line: mean over seeds; small points: seeds; bars: 95 % t interval where there are three seeds or more."
GAP = (
    "Accuracy of the robust backbone less that of the standard one, mode 0. Bars: 95 % t interval over seeds (none for "
    "one seed), and the interval of the distance, corrected for the bias of few images a class, so that the distance "
    "itself may lie beyond its right end. Dashed: mean distance between two halves of one set."
)
CURVES = (
    "Accuracy on test images after each epoch, a line a seed: on all of them for the linear layer and mode 0, on at "
    "most 500 for modes 1 and 2."
)
SMALL = 3


@dataclass(frozen=True)
class Drawing:
    """One figure of the page.

    Attributes:
        name: of its PNG file and its anchor.
        title: with the paper's number, if it has one.
        published: what the paper's figure shows, or says in its place.
        caption: what ours shows.
        only: beginnings of the experiments behind it.
        draw: its figure from what was found; None where nothing was run.
        files: pictures that experiments wrote, in place of ``draw`` or beside it.
        claims: that it speaks to.
        extra: the paper has no such figure; left out where there is nothing to show.
    """

    name: str
    title: str
    published: str
    caption: str
    only: tuple[str, ...]
    draw: Callable[[Found], Figure | None] = lambda found: None
    files: Callable[[Found], Iterator[Picture]] = lambda found: iter(())
    claims: tuple[str, ...] = ()
    extra: bool = False

    def pictures(self, found: Found, folder: Path) -> list[Picture]:
        """What there is to show; a figure is written to ``folder``/NAME.png, too."""
        figure, pictures = self.draw(found), []
        if figure is not None:
            save_figure(figure, folder / f"{self.name}.png")
            wide = len(figure.axes) > SMALL or figure.get_size_inches()[0] > 7
            pictures.append(Picture(folder / f"{self.name}.png", self.caption, described(figure), wide))
        return pictures + list(self.files(found))


FIGURES = (
    Drawing(
        "fig-1",
        "Fig. 1: inversions of test images",
        "The paper: ResNet-50; noise drawn once improves the image, effective images keep what the classifier uses.",
        "",
        ("inversions/", "noise-sizes"),
        files=partial(inversion.inverted, task="own"),
        claims=("inversion", "fig-1-noise-once", "fig-1-effective"),
    ),
    Drawing(
        "fig-1-elsewhere",
        "Sec. 4: inversions of images from another data set",
        "The paper says so, and shows no picture.",
        "",
        ("inversions/",),
        files=partial(inversion.inverted, task="elsewhere"),
        claims=("inversion-elsewhere",),
    ),
    Drawing(
        "fig-2",
        "Fig. 2: convergence of inversion",
        "The paper: with noise drawn once about 200 iterations, without about 8,000.",
        "Inversion loss over iterations; line: median, band: quartiles, over images and seeds. Every arm has its own "
        "best step size of gradient descent; images, starts and steps stand under what this scale runs (the paper: "
        "up to 10,000 steps). Left on the network being inverted (with its noise), right on the clean one.",
        ("convergence",),
        inversion.convergence,
        claims=("fig-2-speed", "fig-2-forty", "fig-2-fit"),
    ),
    Drawing(
        "fig-3",
        "Fig. 3: gap against distance, from ImageNet",
        "The paper: the farther the target, the larger the gap in favour of the robust network.",
        GAP,
        ("transfer/imagenet", "distance/imagenet"),
        partial(transfer.gap_against_distance, data="imagenet"),
        claims=("fig-3", "far-tasks", "near-tasks"),
    ),
    Drawing(
        "fig-4",
        "Fig. 4: information in the weights against eps",
        "The paper: the log-variance of the weights rises with eps, so their information falls (left alone).",
        "Left the mean over weights of -log(F_ii + 1e-8), with the diagonal and a damping in the place of the paper's "
        "log |F^-1|, which is infinite (see its slips); right tr(D F D), which no rescaling of the weights changes. "
        f"{SEEDS}",
        ("measures",),
        information.weight_information,
        claims=("fig-4",),
    ),
    Drawing(
        "fig-5",
        "Fig. 5: norm of the weights",
        "The paper: it falls with eps only above eps = 1, and goes another way during robust training.",
        f"Left against eps, right over the epochs of the first seed. {SEEDS}",
        ("network",),
        information.weight_norm,
        claims=("fig-5-large-eps", "fig-5-small-eps", "fig-5-dynamics"),
    ),
    Drawing(
        "fig-6",
        "Fig. 6: classes in the representation",
        "The paper: as eps grows, features become less discriminative.",
        "t-SNE of the features of test images, first seed, one colour a class (of more than ten the first ten, the "
        "others grey). Above each panel numbers that need no t-SNE: soft nearest neighbour loss (higher: more "
        "entangled), accuracy of 10 nearest neighbours, silhouette.",
        ("features",),
        information.representations,
        claims=("fig-6",),
    ),
    Drawing(
        "fig-7",
        "Fig. 7: gap against distance, from CIFAR-100",
        "The paper: the gap grows with the distance.",
        GAP,
        ("transfer/cifar100", "distance/cifar100"),
        partial(transfer.gap_against_distance, data="cifar100"),
        claims=("fig-7", "far-tasks", "far-tasks-others"),
    ),
    Drawing(
        "fig-8",
        "Fig. 8: gap against distance, from CIFAR-10",
        "The paper: the gap grows with the distance.",
        GAP,
        ("transfer/cifar10/", "distance/cifar10/"),
        partial(transfer.gap_against_distance, data="cifar10"),
        claims=("fig-8", "far-tasks", "far-tasks-others"),
    ),
    Drawing(
        "fig-9",
        "Fig. 9: inversions against eps",
        "The paper: one eps between the smallest and the largest inverts best.",
        "Similarity to the original (1: equal), mean over images; on the right the size of the noise of the "
        "variational and effective inversions, which at one beta grows with eps, so that these two panels change by "
        f"both. Under the pictures of Fig. 1 stands what a grey square has. {SEEDS}",
        ("inversions",),
        inversion.inversion_quality,
        inversion.inverted_by_eps,
        ("fig-9", "inversion"),
    ),
    *(
        Drawing(
            f"fig-{number}",
            f"{title} while fine-tuning, from {name}",
            "The paper draws validation accuracy per epoch, and claims nothing of it.",
            CURVES,
            only,
            partial(transfer.curves, data=data),
            claims=(f"fig-{number}", "fig-13") if number == "12" else (f"fig-{number}",),
        )
        for number, title, name, data, only in (
            ("10", "Fig. 10: accuracy", "CIFAR-10", "cifar10", ("transfer/cifar10/",)),
            ("11", "Fig. 11: accuracy", "CIFAR-100", "cifar100", ("transfer/cifar100",)),
            ("12", "Figs 12 and 13: accuracy", "ImageNet", "imagenet", ("transfer/imagenet",)),
        )
    ),
    Drawing(
        "fig-14",
        "Fig. 14: the modes of fine-tuning",
        "The paper: the gap shrinks from mode 0 to modes 1 and 2; mode 1 gains a good deal over mode 0.",
        f"Test accuracy after fine-tuning: linear layer, with the batch norm before it (0), all batch norms (1), the "
        f"whole network (2). {SEEDS}",
        ("transfer",),
        transfer.modes,
        claims=("fig-14", "batch-norm", "batch-norm-simple"),
    ),
    Drawing(
        "transfer-by-eps",
        "Sec. 5: transfer and accuracy on the source against eps",
        "The paper: there is a trade-off between transferability and accuracy on the source (abstract). It draws none.",
        f"Accuracy on test images; eps 0 is the standard network. {SEEDS}",
        ("accuracy", "transfer"),
        transfer.against_eps_of_training,
        claims=("far-tasks", "complex-target", "waterbed"),
        extra=True,
    ),
    Drawing(
        "other-distances",
        "As Figs 3, 7 and 8, from sources that the paper has not",
        "Not in the paper.",
        GAP,
        ("transfer", "distance"),
        partial(transfer.gap_against_distance, data=None),
        claims=("far-tasks", "far-tasks-others"),
        extra=True,
    ),
    Drawing(
        "other-curves",
        "As Figs 10 to 13, from sources that the paper has not",
        "Not in the paper.",
        CURVES,
        ("transfer",),
        partial(transfer.curves, data=None),
        extra=True,
    ),
    Drawing(
        "prop-3.2",
        "Prop. 3.2: how far the quadratic form goes",
        "The paper: the ratio becomes 1 as the norm of the perturbation goes to 0.",
        "Largest KL divergence found over eps²/2 λ₁, in float64, a ratio of means over images; dotted: 1. A line a "
        "network, of the first seed.",
        ("theory",),
        information.curvature_ratio,
        claims=("prop-3.2", "prop-3.2-training"),
    ),
    Drawing(
        "eq-8",
        "Def. 3.1 and eq. 8: information about the input",
        "The paper: adversarial training lowers the Fisher information and the effective information about the input.",
        "Trace of the Fisher information by the label model, that of the features (Gaussian) over their mean square, "
        f"and effective information at one beta and one prior (how: under its claim). {SEEDS}",
        ("measures",),
        information.input_information,
        claims=("input-fisher", "effective-information", "jacobian"),
    ),
    Drawing(
        "gaussian-noise",
        "After Prop. 3.2: Gaussian noise at equal eps",
        "The paper: training with Gaussian noise leaves directions of higher curvature.",
        "Log of the largest eigenvalue of the sensitivity, mean over images; eps 0 is the standard network of both. "
        f"{SEEDS}",
        ("theory",),
        information.gaussian_noise,
        claims=("gaussian-training", "gaussian-bound"),
    ),
    Drawing(
        "accuracy",
        "Accuracy on the source",
        "The paper: robust networks pay with accuracy on their own task.",
        f"Accuracy on at most {EVALUATED:,} test images, clean and under PGD-20 (L2). {SEEDS}",
        ("accuracy",),
        information.accuracy,
        claims=("waterbed",),
    ),
    Drawing(
        "trades",
        "Eq. 1 against eq. 2: adversarial training and TRADES",
        "The paper writes both, and compares no numbers.",
        f"Accuracy on at most {EVALUATED:,} test images, clean and under PGD-20 (L2); eps 0 is the standard network of "
        "both. TRADES as its authors have it, KL(p(y|x) || p(y|x + delta)); the paper prints the other order. "
        f"{SEEDS}",
        ("accuracy",),
        information.trades,
        claims=("waterbed",),
    ),
)
