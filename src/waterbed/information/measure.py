"""The measures of a network by name, as ``waterbed measure``, sweeps and the demo report them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from waterbed.data.loading import stack
from waterbed.data.task import as_task
from waterbed.devices import device_of
from waterbed.errors import UsageError, UsageTypeError, check_choice, check_count
from waterbed.information.curvature import gaussian_curvature_ratio, kl_curvature_ratio
from waterbed.information.defaults import BETA, PRIOR_VARIANCE
from waterbed.information.effective import effective_information
from waterbed.information.entanglement import soft_nearest_neighbours
from waterbed.information.estimate import SAMPLE_SIZE, Estimate
from waterbed.information.geometry import effective_rank, neural_collapse
from waterbed.information.input_fisher import InputFisher
from waterbed.information.neighbours import knn_estimate
from waterbed.information.spectrum import effective_dimension
from waterbed.information.weight_fisher import WeightFisher
from waterbed.models.features import BATCH_SIZE
from waterbed.models.heads import with_features
from waterbed.models.states import check_module, evaluating
from waterbed.plots import intervals
from waterbed.tables import html_table


@dataclass(frozen=True)
class Settings:
    """The free numbers of the measures.

    Attributes:
        num_samples: images drawn from the test set (measures of the input) and from the training set (of the
            weights).
        seed: of the draw of images.
        damping: added to F_w in its log-variance and log-determinant.
        eps: of the curvature ratios.
        beta, prior_variance: of the information in the weights and the effective information.
        input_variance: of the effective information.
    """

    num_samples: int = 500
    seed: int = 0
    damping: float = 1e-8
    eps: float = 0.5
    beta: float = BETA
    prior_variance: float = PRIOR_VARIANCE
    input_variance: float = 1.0


@dataclass
class _Network:
    """A network with the samples and Fishers its measures share."""

    model: nn.Module
    data: Any
    settings: Settings
    progress: bool = field(default=False)
    workers: int = field(default=0)

    def _sample(self, dataset: Any) -> tuple[Tensor, Tensor]:
        sample = stack(dataset, min(self.settings.num_samples, len(dataset)), self.settings.seed, workers=self.workers)
        device = device_of(self.model)
        return sample[0].to(device), sample[1].to(device)

    @cached_property
    def labelled_test(self) -> tuple[Tensor, Tensor]:
        return self._sample(self.data.test)

    @cached_property
    def labelled_train(self) -> tuple[Tensor, Tensor]:
        return self._sample(self.data.train)

    @property
    def test(self) -> Tensor:
        return self.labelled_test[0]

    @property
    def train(self) -> Tensor:
        return self.labelled_train[0]

    @cached_property
    def test_features(self) -> tuple[Tensor, Tensor]:
        return _features(self.classifier, self.test), self.labelled_test[1]

    @cached_property
    def collapse(self) -> dict[str, Estimate]:
        features = _features(self.classifier, self.train)
        with torch.no_grad():
            decisions = self.classifier.head(features).argmax(1)
        return neural_collapse(features, self.labelled_train[1], _head_weight(self.classifier), decisions)

    @cached_property
    def classifier(self) -> nn.Module:
        """The network with its features, for the quantities that are about them."""
        return with_features(self.model, tuple(self.test.shape[1:]))

    @cached_property
    def about_input(self) -> InputFisher:
        return InputFisher(self.model, self.test)

    @cached_property
    def about_weights(self) -> WeightFisher:
        return WeightFisher(self.model, self.train, progress=self.progress)

    def effective_information(self) -> Estimate:
        s = self.settings
        fisher = WeightFisher(self.classifier, self.train, params="features", progress=self.progress)
        e = effective_information(self.classifier, self.test, fisher, s.beta, s.prior_variance, s.input_variance)
        return replace(e, target=SAMPLE_SIZE)  # the noise, from F_w of so many training images, moves with their number


def _features(classifier: nn.Module, images: Tensor) -> Tensor:
    """(N, d), by batches, in eval mode."""
    with torch.no_grad(), evaluating(classifier):
        return torch.cat([classifier.features(x) for x in images.split(BATCH_SIZE)])


def _head_weight(classifier: nn.Module) -> Tensor:
    """(K, d); raise unless the head is linear."""
    head = classifier.head
    if not isinstance(head, nn.Linear):
        raise UsageError(
            f"model.head is {type(head).__name__}, and neural collapse is about a linear one; leave it out"
        )
    return head.weight


class Measures(dict[str, Estimate]):
    """Estimates by the name of the quantity: a dict that is shown as a table.

    >>> Measures(weight_fisher_trace=Estimate(2.0, 0.1, "nats", n=100, method="exact"))
    weight_fisher_trace  2 ± 0.1 nats (n = 100, exact)
    """

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:{width}}  {estimate}" for name, estimate in self.items()) or "no measures"

    def plot(self) -> Figure:
        """One panel per quantity, as their units differ: the value with its 95 % interval.

        To compare networks, draw several with :func:`waterbed.report`.
        """
        panels = {f"{name} [{e.unit}]" if e.unit else name: [(e.value, *e.interval())] for name, e in self.items()}
        return intervals([""], panels, columns=3)

    def _repr_html_(self) -> str:
        rows = [(name, e.short(), e.unit, e.n, e.method) for name, e in self.items()]
        return html_table(["quantity", "value ± standard error", "unit", "n", "method"], rows, "Measures")


Measure = Callable[[_Network], Estimate]

NEURAL_COLLAPSE = {
    "neural_collapse_1": "variability of the features within classes beside that between them (training images): 0 if "
    "collapsed",
    "neural_collapse_2_norms": "spread of the lengths of the centred class means: 0 if they are equally long",
    "neural_collapse_2_angles": "distance of the cosines between class means from a simplex's: 0 if they are a simplex",
    "neural_collapse_3": "distance between the head's weights and the centred class means: 0 if they are parallel",
    "neural_collapse_4": "share of training images that the network does not assign to the nearest class mean: 0 if "
    "collapsed",
}

QUANTITIES: dict[str, tuple[str, Measure]] = {
    "input_fisher_trace": (
        "tr F_z|x, label model: how fast the predicted distribution moves with the image",
        lambda n: n.about_input.trace(),
    ),
    "input_fisher_lambda_max": (
        "E lambda_1(S), label model: the same along the worst direction (Prop. 3.2)",
        lambda n: n.about_input.lambda_max(),
    ),
    "weight_fisher_trace": (
        "tr F_w: information of the labels about the weights",
        lambda n: n.about_weights.trace(),
    ),
    "weight_rescaling_invariant_trace": (
        "tr(D F_w D), D = diag(w): unchanged when layers are rescaled",
        lambda n: n.about_weights.rescaling_invariant_trace(),
    ),
    "weight_log_variance": (
        "mean of -log(F_ii + damping): log-variance of the weights (Fig. 4), without the bias of few images",
        lambda n: n.about_weights.log_variance(n.settings.damping),
    ),
    "input_fisher_relative_trace": (
        "tr F_z|x / E|z|^2, features seen with Gaussian noise: free of their scale",
        lambda n: InputFisher(n.classifier, n.test, "gaussian").relative_trace(),
    ),
    "kl_curvature_ratio": (
        "largest KL at distance eps over its quadratic form: 1 where Prop. 3.2 holds",
        lambda n: kl_curvature_ratio(n.model, n.test, n.settings.eps),
    ),
    "gaussian_curvature_ratio": (
        "mean KL under Gaussian noise of length eps over its quadratic form",
        lambda n: gaussian_curvature_ratio(n.model, n.test, n.settings.eps, seed=n.settings.seed),
    ),
    "weight_fisher_lambda_max": (
        "largest eigenvalue of F_w",
        lambda n: n.about_weights.lambda_max(),
    ),
    "weight_fisher_logdet": (
        "log det(F_w + damping I); depends on the number of images and weights",
        lambda n: n.about_weights.logdet(n.settings.damping),
    ),
    "weight_information": (
        "information in the weights: KL(Q* || P) at beta (eq. 6)",
        lambda n: n.about_weights.information(n.settings.beta, n.settings.prior_variance),
    ),
    "effective_information": (
        "what z_n tells about a perturbation of x of the given variance (eq. 7)",
        _Network.effective_information,
    ),
    "weight_effective_dimension": (
        "sum of lambda / (lambda + z) over the spectrum of F_w, z = beta / prior_variance: directions the data fix",
        lambda n: effective_dimension(n.about_weights, n.settings.beta / n.settings.prior_variance),
    ),
    "effective_rank": (
        "RankMe, exp of the entropy of the features' singular values: how many dimensions they fill",
        lambda n: effective_rank(n.test_features[0]),
    ),
    "soft_nearest_neighbours": (
        "soft nearest neighbour loss of the features: how entangled the classes are",
        lambda n: soft_nearest_neighbours(*n.test_features),
    ),
    "knn_accuracy": (
        "accuracy of 20 nearest neighbours among the test images' features",
        lambda n: knn_estimate(*n.test_features),
    ),
    **{name: (meaning, lambda n, name=name: n.collapse[name]) for name, meaning in NEURAL_COLLAPSE.items()},
    "weight_log_variance_of_sample": (
        "the log-variance of just these images: its mean moves with their number",
        lambda n: n.about_weights.log_variance(n.settings.damping, SAMPLE_SIZE),
    ),
}
DEFAULT = tuple(QUANTITIES)[:5]  # the cheap ones


ARGUMENTS = tuple(f.name for f in fields(Settings))


def check_measures(name: str, arguments: Any) -> dict[str, Any]:
    """The arguments of :func:`measure` for one quantity; raise unless the quantity and they exist.

    >>> check_measures("weight_fisher_trace", {"num_samples": 50})
    {'num_samples': 50}
    """
    check_choice("measures", name, QUANTITIES)
    if not isinstance(arguments, Mapping):
        raise UsageTypeError(f"measures[{name!r}]={arguments!r} must be a dict of arguments, such as {{}}")
    for argument in arguments:
        check_choice(f"the argument of measures[{name!r}]", argument, ARGUMENTS)
    return dict(arguments)


def measure(
    model: nn.Module,
    data: Any,
    num_samples: int = 500,
    seed: int = 0,
    damping: float = 1e-8,
    quantities: Sequence[str] = DEFAULT,
    progress: bool = False,
    workers: int = 0,
    **settings: float,
) -> Measures:
    """Several measures of one network at once: about the input on test images, about the weights on training images.

    They come by name, in a dict that a notebook and ``print`` show as a table.

    Args:
        model: logits (N, K) from images in [0, 1]; for the quantities of its features :func:`waterbed.wrap` finds them.
        data: with ``train`` and ``test``, a pair (train, test) of data sets or loaders, or one of them for both (see
            :func:`waterbed.as_task`); ``num_samples`` of each are drawn with ``seed`` (fewer if there
            are fewer).
        damping: of the log-variance and log-determinant.
        quantities: names from :data:`QUANTITIES`; the first five by default.
        workers: number of processes that load images, for data too large for memory.
        settings: eps, beta, prior_variance, input_variance; see :class:`Settings`.
    """
    check_count("num_samples", num_samples)
    check_count("workers", workers, at_least=0)
    for name in settings:
        check_choice("the argument of measure", name, ARGUMENTS)
    if isinstance(quantities, str):
        raise UsageError(f"quantities={quantities!r} must be a list; write quantities=[{quantities!r}]")
    for name in quantities:
        check_choice("quantities", name, QUANTITIES)
    if not quantities:
        raise UsageError(f"quantities is empty; name one or more of {', '.join(QUANTITIES)}")
    check_module(model)
    data = as_task(data, one_for_both=True)
    network = _Network(model, data, Settings(num_samples, seed, damping, **settings), progress, workers)
    return Measures({name: QUANTITIES[name][1](network) for name in quantities})
