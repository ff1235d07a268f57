import pickle

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.evaluation.accuracy import Accuracy, correct


def test_wilson_interval():
    # Wilson's interval for 8 of 10 at 95 %, from its closed form.
    p, n, z = 0.8, 10, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    a = Accuracy(8, 10)
    assert (a.low, a.high) == pytest.approx((100 * (centre - half), 100 * (centre + half)))
    assert pickle.loads(pickle.dumps(a)).n == 10


@pytest.fixture
def threshold():
    """Says class 1 where the mean pixel is above one half."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0] * 4, [1.0] * 4]))
        model[1].bias.copy_(torch.tensor([2.0, 0.0]))
    return model


def test_counts_against_known_margins(threshold):
    # All pixels at v: l2 distance to the boundary is |v - 1/2| * 2.
    values = [0.1, 0.3, 0.45, 0.6, 0.9]
    data = [(torch.full((1, 2, 2), v), int(v > 0.5)) for v in values] + [(torch.full((1, 2, 2), 0.2), 1)]
    attacks = [wb.PGD(eps=0.3, steps=20), wb.PGD(eps=0.5, steps=20)]
    score = wb.evaluate(threshold, data, attacks)
    assert score.n == 6
    assert score.clean.correct == 5
    assert [a.correct for a in score.robust.values()] == [3, 2]
    assert score.mean_per_class == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert score.to_dict()["robust"]["pgd-20 l2 eps=0.3"]["correct"] == 3


def test_the_same_for_any_batch_size_without_random_starts(tiny, digits):
    attack = wb.PGD(eps=0.3, steps=3, random_start=False)
    a, b = (wb.evaluate(tiny, digits.test, [attack], batch_size=n) for n in (7, 100))
    assert (a.clean.correct, a.robust[attack.name].correct) == (b.clean.correct, b.robust[attack.name].correct)


def test_mode_and_generator_come_back(tiny, digits):
    tiny.train()
    state = torch.get_rng_state()
    wb.evaluate(tiny, digits.test, [wb.PGD(steps=1)], num_samples=20)
    assert tiny.training
    assert torch.equal(state, torch.get_rng_state())


def test_buffers_come_back_even_if_they_change_in_eval_mode(digits):
    class Observing(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 10)
            self.register_buffer("seen", torch.tensor(0))
            self.register_buffer("largest", torch.zeros(3))

        def forward(self, x):
            self.seen += 1
            self.largest = torch.maximum(self.largest, x.max())  # another tensor in its place
            return self.head(x.flatten(1))

    model = Observing()
    largest = model.largest
    wb.evaluate(model, digits.test, [wb.PGD(steps=1)], num_samples=20)
    assert model.seen == 0
    assert model.largest is largest
    assert not bool(largest.any())


def test_nan_is_never_right():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 2), torch.nan)

    assert not bool(correct(Broken(), torch.rand(3, 1, 2, 2), torch.tensor([0, 0, 1])).any())


def test_two_attacks_of_one_name_are_refused(tiny, digits):
    with pytest.raises(wb.UsageError, match="pgd-7 l2 eps=1"):
        wb.evaluate(tiny, digits.test, [wb.PGD(), wb.PGD()])


def test_the_model_is_probed_once(tiny, digits):
    calls = []
    handle = tiny.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    wb.evaluate(tiny, digits.test, batch_size=20)
    handle.remove()
    assert calls == [1, 20, 20, 20, 20, 20]


def test_a_batch_costs_one_read_from_the_device(tiny, digits):
    """Where the right images are; the number of reads besides does not grow with the number of batches."""

    def reads(batch_size):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            wb.evaluate(tiny, data, [wb.PGD(eps=0.1, steps=2)], batch_size=batch_size)
        return sum(e.count for e in profile.key_averages() if e.key == "aten::_local_scalar_dense")

    images, _ = wb.stack(digits.test)
    labels = tiny(images).argmax(1)

    class InMemory:
        def __len__(self):
            return len(labels)

        def batch(self, indices):
            return images[indices], labels[indices]

    data = InMemory()
    # The bounds of pixels and labels, while they are on the CPU.
    assert (reads(10) - reads(100)) / 9 <= 4
