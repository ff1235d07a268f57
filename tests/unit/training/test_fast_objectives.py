"""N-FGSM, free training and ATTA: what they compute, and that a stopped run goes on to the same end."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waterbed as wb
from waterbed.data.augment import random_crop, random_flip
from waterbed.errors import UsageTypeError
from waterbed.training.warm_start import followed

PGD = wb.PGD("8/255", "linf", steps=3)
SHORT = {"epochs": 2, "batch_size": 32, "watch": 0, "progress": False, "precision": "fp32"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


@pytest.fixture
def batch():
    return wb.stack(wb.load_dataset("digits").train, 12)


@pytest.fixture
def few():
    return wb.load_dataset("digits").take(96, 8)


def input_gradient(model, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0]


def test_n_fgsm_is_one_step_from_noise_and_is_not_projected(model, batch):
    x, y = batch
    objective, eps = wb.NFGSM(PGD), 8 / 255
    torch.manual_seed(3)
    x_adv = objective.adversarial(model, x, y)
    torch.manual_seed(3)
    start = (x + (2 * torch.rand_like(x) - 1) * 2 * eps).clamp(0, 1)
    assert torch.allclose(x_adv, (start + eps * input_gradient(model, start, y).sign()).clamp(0, 1), atol=1e-7)
    distance = (x_adv - x).abs().amax()
    assert 2 * eps < float(distance) <= 3 * eps + 1e-6
    loss, logits = objective(model, model, x, y)
    assert loss.requires_grad
    assert logits.shape == (12, 10)
    assert wb.NFGSM(wb.PGD(0.5)).config() == {
        "name": "n-fgsm", "eps": 0.5, "norm": "l2", "watched": "pgd-7 l2 eps=0.5", "noise": 1.0, "step": 1.0
    }  # fmt: skip


def test_free_training_steps_along_the_gradient_that_trains(model, batch):
    x, y = batch
    eps = 8 / 255
    objective = wb.FreeTraining(PGD, replays=2).started_from(model)
    delta = torch.zeros_like(x)
    for _ in range(3):
        gradient = input_gradient(model, (x + delta).clamp(0, 1), y)
        loss, _ = objective(model, model, x, y)
        assert torch.allclose(loss, F.cross_entropy(model((x + delta).clamp(0, 1)), y))
        loss.backward()
        delta = ((x + delta).clamp(0, 1) - x + eps * gradient.sign()).clamp(-eps, eps)
        assert torch.equal(objective.memory["delta"], delta)
    # The perturbation goes over to the next batch, whatever its size.
    for size in (5, 12):
        loss, _ = objective(model, model, x.flip(0)[:size], y.flip(0)[:size])
        assert torch.isfinite(loss)


def test_free_training_repeats_each_batch(few):
    class Seen(wb.FreeTraining):
        def __call__(self, model, forward, x, y):
            self.memory.setdefault("firsts", []).append(float(x.sum()))
            return super().__call__(model, forward, x, y)

        def state(self):
            return {}

    objective = Seen(PGD, replays=3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    steps = []
    optimizer = lambda parameters: steps.append(torch.optim.SGD(parameters, 0.1)) or steps[0]  # noqa: E731
    seen = {}

    class Callback:
        def on_epoch_end(self, job):
            seen.update(sums=job.objective.memory["firsts"], batches=job.batches, rate=job.scheduler.last_epoch)

    wb.fit(network, few, objective, optimizer=optimizer, callbacks=[Callback()], **{**SHORT, "epochs": 1})
    sums = seen["sums"]
    assert len(sums) == 3 * 3
    assert [sums[i] == sums[i + 1] for i in range(8)] == [True, True, False, True, True, False, True, True]
    assert seen["rate"] == seen["batches"] == 9, "one step of the schedule for each pass"


def test_sources_say_where_pixels_came_from():
    x = torch.rand(20, 3, 8, 8)
    torch.manual_seed(1)
    images, sources = followed(lambda x: random_flip(random_crop(x)), x)
    torch.manual_seed(1)
    assert torch.equal(images, random_flip(random_crop(x))), "with the draws of the augmentation alone"
    padded = torch.cat([torch.zeros(20, 3, 1), x.flatten(2)], 2)
    assert torch.equal(padded.gather(2, sources[:, None].expand(-1, 3, -1)).view_as(x), images)
    assert bool((sources == 0).any())


def test_atta_goes_on_from_where_each_image_ended(model, batch):
    x, y = batch
    eps = 8 / 255
    objective = wb.ATTA(PGD, steps=1, step=0.25, reset=2).started_from(model)
    place = torch.arange(64).add(1).expand(12, -1)
    flipped = place.view(12, 8, 8).flip(-1).flatten(1)
    order = torch.arange(12).flip(0)
    objective.begin_batch(0, order, place, 20)
    objective(model, model, x, y)
    first = objective.memory["deltas"][order].float().view_as(x)
    assert 0 < float(first.abs().max()) <= eps * 1.001
    assert objective.memory["known"].tolist() == [True] * 12 + [False] * 8
    # An epoch later the images come mirrored, and so does the start.
    objective.begin_batch(1, order, flipped, 20)
    start = objective._start(x.flip(-1))
    assert torch.allclose(start, first.flip(-1), atol=1e-4)
    objective(model, model, x.flip(-1), y)
    moved = (x.flip(-1) + start).clamp(0, 1)
    moved = moved + 0.25 * eps * input_gradient(model, moved, y).sign()
    expected = (x.flip(-1) + (moved - x.flip(-1)).clamp(-eps, eps)).clamp(0, 1) - x.flip(-1)
    second = objective.memory["deltas"][order].float().view_as(x)
    assert torch.allclose(second.flip(-1), expected, atol=1e-4)
    # After two epochs all start again at random.
    objective.begin_batch(2, order, place, 20)
    assert not bool(objective.memory["known"].any())
    assert not torch.allclose(objective._start(x), second, atol=1e-3)
    # Pixels that were cut off keep their perturbation; those of padding have none.
    objective(model, model, x, y)
    third = objective.memory["deltas"][order].clone()
    cut = torch.cat([place[:, 8:], torch.zeros(12, 8, dtype=torch.long)], 1)
    objective.begin_batch(3, order, cut, 20)
    objective(model, model, torch.cat([x[:, :, 1:], torch.zeros(12, 1, 1, 8)], 2), y)
    fourth = objective.memory["deltas"][order]
    assert torch.equal(fourth[:, :, :8], third[:, :, :8])
    assert not torch.equal(fourth[:, :, 8:], third[:, :, 8:])


@pytest.mark.parametrize(
    "objective",
    [wb.NFGSM(PGD), wb.FreeTraining(PGD, replays=2), wb.ATTA(PGD, reset=2)],
    ids=lambda o: o.config()["name"],
)
def test_a_stopped_training_goes_on_to_the_same_end(objective, few, tmp_path):
    class Stopping:
        def on_epoch_end(self, job):
            if job.epoch == stop_after:
                raise KeyboardInterrupt

    ends = []
    for stop_after in (0, 1):
        folder = tmp_path / str(stop_after)
        for _ in range(2):
            torch.manual_seed(0)
            network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
            try:
                run = wb.fit(network, few, objective, folder, callbacks=[Stopping()], **{**SHORT, "epochs": 3})
            except KeyboardInterrupt:
                assert stop_after
        ends.append(torch.cat([p.detach().flatten() for p in run.model.parameters()]))
    assert torch.equal(*ends)
    assert run.config["objective"] == objective.config()
    assert not getattr(objective, "memory", {}), "what a training remembers is its own"


def test_what_does_not_fit_is_refused(few, model):
    with pytest.raises(UsageTypeError, match="has no eps and norm"):
        wb.NFGSM(wb.as_attack(lambda model, x, y: x, name="none"))
    with pytest.raises(wb.UsageError, match=r"color_jitter=0\.1 changes pixels"):
        wb.fit(model, few, wb.ATTA(PGD), color_jitter=0.1, **SHORT)
    with pytest.raises(wb.UsageError, match="augment='resized-crop-flip' changes pixels"):
        wb.fit(model, few, wb.ATTA(PGD), augment="resized-crop-flip", **SHORT)
    with pytest.raises(wb.UsageError, match="replays=0"):
        wb.FreeTraining(PGD, replays=0)


@pytest.mark.parametrize("name", ["n-fgsm", "atta", "free"])
def test_by_name_they_are_watched_under_ten_steps(name):
    from waterbed.training.objective_config import ObjectiveConfig
    from waterbed.training.objectives import make_objective

    made = make_objective(ObjectiveConfig(name, eps="8/255", norm="linf", attack_steps=2))
    assert made.config()["name"] == name
    assert made.attack.steps == 10
    assert (getattr(made, "steps", 2), getattr(made, "replays", 2)) == (2, 2)
