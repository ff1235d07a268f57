"""The logistic path against scikit-learn, and accuracies of heads."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from waterbed.transfer_learning.heads import Heads
from waterbed_paper.linear_probes import accuracies, logistic_path


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    return x, (x[:, :3] + 0.5 * torch.randn(50, 3, generator=generator)).argmax(1)


def test_logistic_path_has_the_optima_of_scikit_learn(task):
    x, y = task
    decays = [1e-3, 0.1]
    heads = logistic_path(x, y, 3, decays)
    for i, decay in enumerate(decays):
        theirs = LogisticRegression(C=1 / (decay * len(x)), tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
        logits = x @ heads.weight[i].T + heads.bias[i]
        expected = torch.from_numpy(theirs.predict_proba(x.numpy()))
        torch.testing.assert_close(logits.softmax(1), expected, atol=2e-4, rtol=0)


def test_accuracy_counts_what_diverged_as_wrong():
    weight = torch.tensor([[[1.0], [0.0]], [[float("nan")], [0.0]]])
    heads = Heads(weight, torch.zeros(2, 2))
    assert accuracies(heads, torch.ones(1500, 1), torch.zeros(1500, dtype=torch.long)) == [100.0, 0.0]
