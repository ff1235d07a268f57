"""Batched heads against one head trained by torch, and the logistic path against scikit-learn."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from waterbed.training.config import TrainConfig
from waterbed_paper.linear_probes import Heads, logistic_path, train_heads

CONFIG = TrainConfig(epochs=6, batch_size=16, schedule="step", milestones=(2, 4), nesterov=False, seed=3)


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    return x, (x[:, :3] + 0.5 * torch.randn(50, 3, generator=generator)).argmax(1)


def one_head(x, y, lr, decay, config):
    """The same head trained alone, by torch's own optimiser."""
    torch.manual_seed(config.seed)
    head = nn.Linear(5, 3).to(x)
    groups = [{"params": [head.weight], "weight_decay": decay}, {"params": [head.bias]}]
    optimizer = torch.optim.SGD(groups, lr, momentum=config.momentum)
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        for batch in torch.randperm(len(x), generator=generator).tensor_split(4):
            for group in optimizer.param_groups:
                group["lr"] = lr * 0.1 ** sum(epoch >= m for m in config.milestones)
            optimizer.zero_grad()
            F.cross_entropy(head(x[batch]), y[batch]).backward()
            optimizer.step()
    return head


def test_every_head_is_what_it_would_be_alone(task):
    settings = [(0.1, 0.0), (0.5, 0.05), (0.01, 0.5)]
    heads = train_heads(*task, 3, settings, CONFIG)
    for i, (lr, decay) in enumerate(settings):
        alone = one_head(*task, lr, decay, CONFIG)
        torch.testing.assert_close(heads.weight[i], alone.weight.detach())
        torch.testing.assert_close(heads.bias[i], alone.bias.detach())


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
    assert heads.accuracies(torch.ones(1500, 1), torch.zeros(1500, dtype=torch.long)) == [100.0, 0.0]
