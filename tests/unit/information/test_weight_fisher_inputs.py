"""WeightFisher from loaders, and how often it passes over its examples."""

import pytest
import torch
from tests.conftest import make_convnet, make_mlp
from torch.utils.data import DataLoader, TensorDataset

import waterbed as wb
from waterbed.information import fisher_operator
from waterbed.information.per_example import WeightRows

X = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10) % 3


@pytest.fixture
def mlp():
    return make_mlp().eval()


def loader(*tensors):
    return DataLoader(TensorDataset(*tensors), batch_size=4)


@pytest.mark.parametrize("labels", ["exact", "sampled", "empirical"])
def test_a_loader_gives_what_its_tensors_give(mlp, labels):
    whole = wb.WeightFisher(mlp, X, Y, labels)
    batched = wb.WeightFisher(mlp, loader(X, Y), labels=labels)
    assert torch.equal(batched.diagonal(), whole.diagonal())
    assert batched.complexity(0.1, 1.0).value == whole.complexity(0.1, 1.0).value


@pytest.mark.parametrize("batches", [[X[:3], X[3:]], (x for x in X.split(4)), [[X]], [(X, Y)], loader(X, Y)])
def test_iterables_of_batches(mlp, batches):
    batches = [batch for item in batches for batch in item] if batches == [[X]] else batches
    assert torch.equal(wb.WeightFisher(mlp, batches).diagonal(), wb.WeightFisher(mlp, X).diagonal())


def test_labels_come_from_the_loader_or_from_targets(mlp):
    with pytest.raises(wb.UsageError, match=r"targets= was passed.*leave targets out"):
        wb.WeightFisher(mlp, loader(X, Y), Y)
    batches = X.split(4)
    given = wb.WeightFisher(mlp, batches, Y, "empirical").diagonal()
    assert torch.equal(given, wb.WeightFisher(mlp, X, Y, "empirical").diagonal())
    with pytest.raises(wb.UsageError, match="needs targets="):
        wb.WeightFisher(mlp, batches, labels="empirical")


def test_labels_of_a_loader_matter_only_where_they_are_used(mlp):
    other = loader(X, Y + 50)
    assert wb.WeightFisher(mlp, other).trace().value == wb.WeightFisher(mlp, X).trace().value
    with pytest.raises(wb.UsageError, match="50 to 52"):
        wb.WeightFisher(mlp, other, labels="empirical")
    with pytest.raises(wb.UsageError, match="50 to 52"):
        wb.WeightFisher(mlp, other).complexity(0.1, 1.0)


WRONG = {
    "no batches": ([], "no batches"),
    "single examples": (TensorDataset(X, Y), "inputs=TensorDataset.*DataLoader"),
    "a data set": ([(X[0], 1), (X[1], 2)], r"batch 0.*\(Tensor, int\).*DataLoader"),
    "names": ([X, "x"], "batch 1.*not str"),
    "labels of another length": ([(X, Y[:3])], r"batch 0.*\(\(10, 4\), \(3,\)\)"),
    "inputs of two shapes": ([X, X[:, :3]], "batch 1.*one shape"),
    "labels in the second": ([X[:2], (X, Y)], "batch 1.*all with labels"),
    "no labels in the second": ([(X, Y), X], "batch 1.*all without"),
    "an array": (X.numpy(), "float tensor.*ndarray"),
    "a number": (3, "float tensor.*int"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_batches(mlp, case):
    batches, message = WRONG[case]
    with pytest.raises((wb.UsageError, TypeError), match=message):
        wb.WeightFisher(mlp, batches)


@pytest.mark.parametrize("make", [make_mlp, make_convnet])
def test_one_pass_serves_four_measures(make, monkeypatch):
    model = make().eval()
    x = X if make is make_mlp else torch.randn(10, 1, 6, 6, dtype=torch.float64)
    calls = []
    original = WeightRows.squares

    def counted(self, inputs, directions):
        calls.append(len(inputs))
        return original(self, inputs, directions)

    def four(f):
        return [f.trace(), f.log_variance(), f.rescaling_invariant_trace(), f.log_variance(1e-3)]

    monkeypatch.setattr(WeightRows, "squares", counted)
    f = wb.WeightFisher(model, x, chunk_size=4)
    results = four(f)
    f.diagonal()
    f.logdet(method="diagonal")
    assert calls == [4, 4, 2]
    calls.clear()
    monkeypatch.setattr(fisher_operator, "SQUARES_BYTES", 8 * 10 * f.size - 1)  # does not hold the squares
    assert four(wb.WeightFisher(model, x, chunk_size=4)) == results
    assert calls == [4, 4, 2] * 3
