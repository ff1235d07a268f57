"""extract_features: the representation of a data set, or of some of its examples."""

from dataclasses import replace

import pytest
import torch

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.models.features import head_probabilities


def test_features_of_either_split(tiny, digits):
    x, y = wb.extract_features(tiny, digits, "test", batch_size=32)
    assert x.shape == (100, 16)
    assert y.tolist() == [digits.test[i][1] for i in range(100)]
    assert torch.allclose(x[:5], tiny.features(torch.stack([digits.test[i][0] for i in range(5)])), atol=1e-5)
    with pytest.raises(wb.UsageError, match="split='trian'"):
        wb.extract_features(tiny, digits, "trian")


def test_features_of_some_examples_in_their_order(tiny, digits):
    indices = torch.tensor([7, 3, 90, 3])
    x, y = wb.extract_features(tiny, digits, "test", batch_size=3, indices=indices)
    everything, labels = wb.extract_features(tiny, digits, "test")
    assert torch.allclose(x, everything[indices], atol=1e-5)
    assert torch.equal(y, labels[indices])


def test_the_head_on_features_is_the_network(tiny, digits):
    x, _ = wb.extract_features(tiny, digits, "test")
    images = torch.stack([digits.test[i][0] for i in range(100)])
    assert torch.allclose(head_probabilities(tiny, x, batch_size=30), tiny(images).softmax(1), atol=1e-5)


def test_labels_that_are_none_of_the_classes_are_refused(tiny, digits):
    wrong = replace(digits, train=TensorImages(digits.train.images, digits.train.labels + 1))
    with pytest.raises(wb.UsageError, match="labels"):
        wb.extract_features(tiny, wrong)
    assert len(wb.extract_features(tiny, wrong.train)[1]) == 256, "a bare data set names no classes"
