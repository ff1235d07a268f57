"""Which images, which arguments: every quantity of measure() against the class it comes from."""

import pytest
import torch

import waterbed as wb
from waterbed.data.loading import stack
from waterbed.information.entanglement import soft_nearest_neighbours
from waterbed.information.geometry import effective_rank, neural_collapse
from waterbed.information.measure import DEFAULT, QUANTITIES
from waterbed.information.neighbours import knn_estimate

NUM, SEED, BETA, PRIOR, DAMPING, EPS, VARIANCE = 12, 3, 1e-2, 0.1, 1e-3, 0.2, 2.0


@pytest.fixture
def expected(tiny, digits):
    """What each quantity is of, image by image: test images for the input, training images for the weights."""
    model = tiny
    (test, test_labels), (train, train_labels) = (stack(part, NUM, SEED) for part in (digits.test, digits.train))
    with torch.no_grad():
        test_features, train_features, decisions = model.features(test), model.features(train), model(train).argmax(1)
    about_input, weights = wb.InputFisher(model, test), wb.WeightFisher(model, train)
    of_features = wb.WeightFisher(model, train, params="features")
    return {
        "input_fisher_trace": about_input.trace(),
        "input_fisher_lambda_max": about_input.lambda_max(),
        "input_fisher_relative_trace": wb.InputFisher(model, test, "gaussian").relative_trace(),
        "kl_curvature_ratio": wb.kl_curvature_ratio(model, test, EPS),
        "weight_fisher_trace": weights.trace(),
        "weight_rescaling_invariant_trace": weights.rescaling_invariant_trace(),
        "weight_log_variance": weights.log_variance(DAMPING),
        "weight_log_variance_of_sample": weights.log_variance(DAMPING, "sample size"),
        "weight_fisher_lambda_max": weights.lambda_max(),
        "weight_fisher_logdet": weights.logdet(DAMPING),
        "weight_information": weights.information(BETA, PRIOR),
        "weight_effective_dimension": weights.effective_dimension(BETA / PRIOR),
        "effective_rank": effective_rank(test_features),
        "soft_nearest_neighbours": soft_nearest_neighbours(test_features, test_labels),
        "knn_accuracy": knn_estimate(test_features, test_labels),
        **neural_collapse(train_features, train_labels, model.head.weight, decisions),
        "effective_information": wb.effective_information(model, test, of_features, BETA, PRIOR, VARIANCE),
    }


def test_measures_of_the_input_are_on_test_images_and_those_of_the_weights_on_training_images(tiny, digits, expected):
    names = [name for name in QUANTITIES if name != "gaussian_curvature_ratio"]
    assert set(names) == set(expected)
    settings = {"damping": DAMPING, "eps": EPS, "beta": BETA, "prior_variance": PRIOR, "input_variance": VARIANCE}
    measured = wb.measure(tiny, digits, NUM, SEED, quantities=names, **settings)
    for name, estimate in measured.items():
        assert estimate.value == pytest.approx(expected[name].value, rel=1e-5), name
        assert estimate.stderr == pytest.approx(expected[name].stderr, rel=1e-4), name
        assert (estimate.n, estimate.unit) == (NUM, expected[name].unit), name


def test_the_cheap_ones_by_default(tiny, digits):
    assert tuple(wb.measure(tiny, digits, 4)) == DEFAULT
