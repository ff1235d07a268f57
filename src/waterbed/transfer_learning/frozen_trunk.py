"""FrozenTrunk: the part of a network that a mode does not train is run once, and its outputs train the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.data.augment import augmentation
from waterbed.data.images import check_data
from waterbed.data.task import as_task
from waterbed.devices import as_device, device_of, seeded
from waterbed.distributed import Engine
from waterbed.errors import UsageError, check_choice
from waterbed.evaluation.accuracy import Score, score_of
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.states import evaluating, probe
from waterbed.progress import Progress
from waterbed.training.checkpointing import diverged
from waterbed.training.config import OF_IMAGES, TrainConfig
from waterbed.training.fit import run_config
from waterbed.training.objectives import Standard
from waterbed.training.run_folder import Run, open_run
from waterbed.training.state import Job
from waterbed.training.state_files import FINISHED
from waterbed.transfer_learning.activation_cache import DISK_BYTES, MEMORY_BYTES, Cache, CachePlan, fill
from waterbed.transfer_learning.heads import can_train_heads, head_accuracies, shuffled
from waterbed.transfer_learning.logistic import fit_logistic
from waterbed.transfer_learning.modes import CACHED_MODES, submodules, trained_modules, with_new_head
from waterbed.transfer_learning.search import Pair, one_by_one
from waterbed.transfer_learning.settings import FINETUNING, augmenting_recipe, check_cacheable
from waterbed.transfer_learning.splitting import UntraceableError, same_cut, split


class FrozenTrunk:
    """A network cut in two for a task: the trunk, which is run once and cached, and the tail that ``mode`` trains.

    The trunk is run when its outputs are first needed, by a training or a score; any number of trainings share them.

    Args:
        model: the source network; it is not changed, and must not be while the trunk is in use.
        data: what ``load_dataset`` returns, of the model's image shape, or an object like it.
        mode: "linear" or 0 of :func:`finetune`; the others leave no trunk.
        augmenting: settings of :class:`~waterbed.training.config.TrainConfig` that change each training image, such as
            ``augment`` and ``color_jitter``.
        views: number of augmented copies of each training image; epochs take them in turn.
        seed: of the augmentation.
        memory_bytes: a cache of up to that size is float32 in memory, a larger one bfloat16 in a temporary file.
        disk_bytes: a larger file is refused.
        device: where the trunk is run and the tail is trained, and a GPU with room for it has the cache; by default
            that of :func:`waterbed.fit`.
        workers: processes that decode images, for data too large for memory.
        progress: whether to show a progress bar while the trunk is run.

    Attributes:
        trained: names of the modules that are trained.
        record: what a run records of the cache.

    ``str(trunk)`` says where the cache lies.

    Raises:
        UntraceableError: torch.fx cannot trace the model.
        UsageError: data that do not fit, a mode without a trunk, views that are all the same, a cache beyond the
            budget.

    >>> import waterbed as wb
    >>> model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> trunk = FrozenTrunk(model, wb.load_dataset("digits").take(100, 50), "linear")
    >>> runs = [trunk.fit(epochs=1, lr=0.1, seed=seed) for seed in (0, 1)]
    >>> trunk.score(runs[0].model).n, str(trunk)
    (50, 'memory, float32, 1 view')
    """

    def __init__(
        self,
        model: FeatureClassifier,
        data: Any,
        mode: int | str = 0,
        *,
        views: int = 1,
        seed: int = FINETUNING.seed,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
        device: torch.device | str | None = None,
        workers: int = FINETUNING.workers,
        progress: bool = FINETUNING.progress,
        **augmenting: Any,
    ) -> None:
        check_choice("mode", mode, CACHED_MODES)
        data = as_task(data)
        check_data(data)
        self.recipe = replace(augmenting_recipe(views, augmenting), workers=workers)
        self.model, self.data, self.mode = model, data, mode
        self.views, self.seed = views, seed
        self.device = as_device(device, Engine("fp32").device)
        self.trained = trained_modules(model, mode, data.shape)
        self._trunk, self._tail = split(model, self.trained)
        self._progress = progress
        blank = torch.zeros(1, *data.shape, device=device_of(model))
        outputs = probe(model, blank, f"data {data.name!r} images", self._trunk)
        self._plans = [
            CachePlan.of(outputs, copies, len(images), memory_bytes, disk_bytes, self.device)
            for images, copies in ((data.train, views), (data.test, 1))
        ]
        self.record = self._plans[0].record

    def __str__(self) -> str:
        return str(self._plans[0])

    @cached_property
    def train(self) -> Cache:
        """The trunk's outputs for the training images."""
        augmented = augmentation(self.recipe, self.data)
        return self._fill(0, augmented.images, augmented)

    @cached_property
    def test(self) -> Cache:
        """The trunk's outputs for the test images."""
        return self._fill(1, self.data.test)

    def _fill(self, plan: int, images: Any, change: Callable[[Tensor], Tensor] = lambda x: x) -> Cache:
        how = {"seed": self.seed, "progress": self._progress, "workers": self.recipe.workers, "device": self.device}
        return fill(self._plans[plan], self._trunk, images, self.data.num_classes, change, **how)

    def check(self, config: TrainConfig, views: int = 1) -> None:
        """Raise :class:`UsageError` for settings that training on this cache cannot honour.

        Args:
            views: the number asked for; 1 leaves it to the trunk.
        """
        check_cacheable(config)
        for name, cached in self.recipe.of_images().items():
            if getattr(config, name) != cached:
                raise UsageError(
                    f"{name}={getattr(config, name)!r}, but the trunk caches images of {name}={cached!r}; pass the "
                    "same to both"
                )
        if config.workers not in (0, self.recipe.workers):
            raise UsageError(f"workers={config.workers}, but the trunk has {self.recipe.workers}; pass it to the trunk")
        if views not in (1, self.views):
            raise UsageError(f"views={views}, but the trunk caches {self.views}; pass the same to both")

    def search_epochs(self, epochs: int) -> int:
        """How long the trainings are that decide a search: on a cache as long as the training itself."""
        return epochs

    def held_out_accuracies(
        self, pairs: Sequence[Pair], config: TrainConfig, train: Tensor, held: Tensor
    ) -> list[float]:
        """Percent of the training images ``held`` that trainings on the images ``train`` alone get right.

        One for each pair (learning rate, weight decay); in mode "linear" all heads are trained at once.
        """
        if self.mode == "linear" and can_train_heads(config):
            start = with_new_head(self.model, self.data, self.trained, config.seed).head.to(self.device)
            return head_accuracies(self.train, start, pairs, config, train, held)
        return one_by_one(self, pairs, config, train, held)

    def fit(
        self,
        config: TrainConfig | None = None,
        out: str | Path | None = None,
        *,
        notes: Mapping[str, Any] | None = None,
        indices: Tensor | None = None,
        **settings: Any,
    ) -> Run:
        """Train a copy of the network with a new head by SGD on the cache.

        Args:
            config, settings: the recipe, a :class:`TrainConfig`, or its fields as keywords over :func:`finetune`'s
                defaults.
            out: run folder, written when the training is done; None writes nothing. A finished run is returned.
            notes: more to record in the run's config.
            indices: (M,), the training images to use; all by default.

        Raises:
            UsageError: a setting that a cached trunk cannot honour.
            DivergenceError: the loss is not finite.
        """
        config = TrainConfig.of(config, settings, self._defaults())
        self.check(config)
        return self._run(config, out, notes, lambda tuned: self._train_tail(tuned, config, indices))

    def fit_logistic(
        self,
        config: TrainConfig | None = None,
        out: str | Path | None = None,
        *,
        validation: float = 0.1,
        notes: Mapping[str, Any] | None = None,
    ) -> Run:
        """A copy of the network whose new head is logistic regression on standardised features; mode "linear" only.

        Args:
            config: its seed draws the held-out images; the rest is recorded.
            validation: the fraction of the training images held out to choose the strength of the regularisation.
            out, notes: as for :meth:`fit`.
        """
        if self.mode != "linear":
            raise UsageError(f"logistic regression fits the head alone; pass mode='linear', not {self.mode!r}")
        if self.model.head.bias is None:
            raise UsageError("solver='logistic' has an intercept, and the head has no bias; pass solver='sgd'")
        config = self._defaults() if config is None else config
        return self._run(config, out, notes, lambda tuned: self._solve_head(tuned, config.seed, validation))

    def score(self, model: nn.Module) -> Score:
        """:func:`waterbed.evaluate` of a fine-tuned model on the test images, without running the trunk.

        Args:
            model: that of a run of :meth:`fit`.
        """
        return score_of(self._predictions(model, self.test), self.test.labels)

    def accuracy(self, model: nn.Module, indices: Tensor) -> float:
        """Percent of the training images ``indices`` (M,) that a fine-tuned model gets right."""
        return _percent(self._predictions(model, self.train, indices) == self.train.labels[indices])

    def _defaults(self) -> TrainConfig:
        return TrainConfig.of(None, self.recipe.of_images(), FINETUNING)

    def _run(
        self,
        config: TrainConfig,
        out: str | Path | None,
        notes: Mapping[str, Any] | None,
        train: Callable[[FeatureClassifier], list[dict[str, Any]]],
    ) -> Run:
        """The run of a copy with a new head, which ``train`` trains in place, returning the history."""
        engine = Engine("fp32")
        tuned = with_new_head(self.model, self.data, self.trained, config.seed).to(self.device)
        record = {**run_config(tuned, self.data, Standard(), config, engine), **(notes or {})}
        with open_run(out, record, config.resume, keys=FINISHED) as (folder, saved):
            path = folder.path if folder else None
            if saved is not None:
                tuned.load_state_dict(saved["model"])
                history = saved["history"]
                if folder is not None:
                    folder.complete(history, tuned, tuned.state_dict(), history[-1]["epoch"])
                return Run(tuned.eval(), history, path, record)
            history = train(tuned)
            if folder is not None:
                folder.save({"model": tuned.state_dict(), "history": history}, history, weights=tuned)
        return Run(tuned.eval(), history, path, record)

    def _train_tail(
        self, tuned: FeatureClassifier, config: TrainConfig, indices: Tensor | None
    ) -> list[dict[str, Any]]:
        device, cache, tail = device_of(tuned), self.train, same_cut(self._tail, tuned)
        indices = torch.arange(len(cache)) if indices is None else indices
        steps = math.ceil(len(indices) / config.batch_size)
        job = Job(tuned, submodules(tuned, self.trained), config, steps)
        with (
            seeded(config.seed, device),
            Progress("training on the cache", config.epochs, config.progress) as progress_bar,
        ):
            for epoch in range(config.epochs):
                job.train_mode()
                for batch in shuffled(indices, config, epoch).tensor_split(steps):
                    values, y = cache.batch(batch, epoch % cache.views, device)
                    logits = tail(*values)
                    loss = F.cross_entropy(logits, y, label_smoothing=config.label_smoothing)
                    job.step(Tensor.backward, loss, logits, y)
                first_bad_batch = job.meter.read()
                if first_bad_batch is not None:
                    raise diverged(epoch, first_bad_batch)
                progress_bar.advance(message=str(job.meter))
                job.end_epoch({**job.meter.record(), **(self._watched(tuned) if config.watch else {})})
        return job.history

    def _solve_head(self, tuned: FeatureClassifier, seed: int, validation: float) -> list[dict[str, Any]]:
        features = self.train.values[0][0].float().flatten(1).cpu()
        probe = fit_logistic(features, self.train.labels, self.data.num_classes, seed, validation)
        with torch.no_grad():
            tuned.head.weight.copy_(probe.weight)
            tuned.head.bias.copy_(probe.bias)
        return [{"epoch": 1, "strength": probe.strength, "edge": probe.edge, **self._watched(tuned)}]

    def _watched(self, model: nn.Module) -> dict[str, float]:
        return {"test_clean": _percent(self._predictions(model, self.test) == self.test.labels)}

    @torch.no_grad()
    def _predictions(self, model: nn.Module, cache: Cache, indices: Tensor | None = None) -> Tensor:
        """Classes (M,) of cached images (all by default) on the CPU; -1, which no label is, where a logit is NaN."""
        device, tail = device_of(model), same_cut(self._tail, model)
        indices = torch.arange(len(cache)) if indices is None else indices
        classes = []
        with evaluating(model):
            for part in indices.split(1024):
                logits = tail(*cache.batch(part, 0, device)[0])
                classes.append(logits.argmax(1).masked_fill(logits.isnan().any(1), -1).cpu())
        return torch.cat(classes)


def trunk_for(
    model: FeatureClassifier,
    data: Any,
    mode: int | str,
    cache: str = "auto",
    *,
    views: int = 1,
    **options: Any,
) -> FrozenTrunk | None:
    """The trunk that :func:`finetune` uses for these arguments, or None if it runs the whole network at every step.

    It does in the modes 1 and 2, with cache="never", and for a network that cannot be cut.

    Args:
        options: anything else that :class:`FrozenTrunk` takes.
    """
    check_choice("cache", cache, ("auto", "never"))
    augmenting_recipe(views, {name: options[name] for name in OF_IMAGES if name in options})
    if mode not in CACHED_MODES or cache == "never":
        return None
    try:
        return FrozenTrunk(model, data, mode, views=views, **options)
    except UntraceableError:
        return None


def _percent(hits: Tensor) -> float:
    return 100 * float(hits.double().mean())
