"""Batch norm over all processes: its formula in one, and what it cannot be combined with."""

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.training.config import TrainConfig
from waterbed.training.joint_batch_norm import JointBatchNorm, batch_norms, joint_batch_norm

KINDS = {
    "images": (nn.BatchNorm2d(3), (6, 3, 4, 5)),
    "vectors": (nn.BatchNorm1d(3, affine=False), (6, 3)),
    "sequences": (nn.BatchNorm1d(3, momentum=None, eps=0.1), (6, 3, 4)),
}


@pytest.mark.parametrize(("layer", "shape"), KINDS.values(), ids=KINDS)
def test_one_process_alone_has_torchs_batch_norm(layer, shape):
    layer = layer.double()
    torch.manual_seed(0)
    results = []
    for block in (JointBatchNorm(), torch.enable_grad()):
        layer.reset_parameters()
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 5
        x.requires_grad_()
        with block:
            out = layer(x) + layer(2 * x)
        (gradient,) = torch.autograd.grad(out.pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        results.append([out, gradient, second, layer.running_mean, layer.running_var, layer.num_batches_tracked])
        results[-1] = [t.detach().clone() for t in results[-1]]
    for joint, plain in zip(*results, strict=True):
        torch.testing.assert_close(joint, plain, rtol=1e-9, atol=1e-9)


def test_a_mean_far_from_zero_costs_no_digits():
    x = 1e4 + torch.randn(64, 2, 8, 8)
    ours = joint_batch_norm(x, torch.zeros(2), torch.ones(2), training=True)
    exact = joint_batch_norm(x.double(), torch.zeros(2).double(), torch.ones(2).double(), training=True)
    assert float((ours - exact).abs().max()) < 5e-3


def test_half_precision_is_normalised_in_single():
    x = (torch.randn(64, 2, 8, 8) + 3).bfloat16()
    ours = joint_batch_norm(x, torch.zeros(2), torch.ones(2), training=True)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, nn.functional.batch_norm(x, torch.zeros(2), torch.ones(2), training=True))


def test_eval_mode_is_left_alone():
    model = wb.create_model("resnet10", 10, width=4, in_channels=1).eval()
    x = torch.rand(2, 1, 8, 8)
    before = model(x)
    with JointBatchNorm():
        assert torch.equal(model(x), before)


def test_what_cannot_be_joined_is_refused():
    joint, model = TrainConfig(sync_batchnorm=True), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert isinstance(batch_norms(joint, model, 2), JointBatchNorm)
    for config, processes in ((joint, 1), (TrainConfig(), 2)):
        assert not isinstance(batch_norms(config, model, processes), JointBatchNorm)
    model.append(nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(wb.UsageError, match="running statistics, which the layer '2' of the model does not keep"):
        batch_norms(joint, model, 2)
    with pytest.raises(wb.UsageError, match="sync_batchnorm=True cannot be honoured with compile=True"):
        batch_norms(TrainConfig(sync_batchnorm=True, compile=True), nn.Linear(2, 2), 2)
