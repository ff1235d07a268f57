"""Fine-tuning that runs the whole network at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Subset

from waterbed.errors import UsageError
from waterbed.evaluation.accuracy import Score, evaluate
from waterbed.models.classifier import FeatureClassifier
from waterbed.training.callbacks import Callback
from waterbed.training.config import TrainConfig
from waterbed.training.fit import fit
from waterbed.training.objective import Objective
from waterbed.training.objectives import Standard
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.modes import submodules, trained_modules, with_new_head
from waterbed.transfer_learning.search import Pair, one_by_one
from waterbed.transfer_learning.settings import FINETUNING


class WholeNetwork:
    """The counterpart of :class:`FrozenTrunk` for modes without a trunk and for networks that cannot be cut.

    Attributes:
        trained: names of the modules that ``mode`` trains; [""] is the whole model.
    """

    def __init__(
        self,
        model: FeatureClassifier,
        data: Any,
        mode: int | str,
        objective: Objective | None = None,
        workers: int = FINETUNING.workers,
    ) -> None:
        self.model, self.data, self.objective, self.workers = model, data, objective or Standard(), workers
        self.trained = trained_modules(model, mode, data.shape)

    record = "none"  # of a cache

    def check(self, config: TrainConfig, views: int = 1) -> None:
        """Raise :class:`UsageError` for settings that have no meaning without a cache."""
        if views > 1:
            raise UsageError(
                f"views={views} are copies in a cache, and here the whole network is run on images augmented anew at "
                f"every step with augment={config.augment!r}; leave views out"
            )

    def search_epochs(self, epochs: int) -> int:
        """How long the trainings are that decide a search: a quarter, since each costs the whole network."""
        return max(1, epochs // 4)

    def held_out_accuracies(
        self, pairs: Sequence[Pair], config: TrainConfig, train: Tensor, held: Tensor
    ) -> list[float]:
        """Percent of the training images ``held`` that trainings on the images ``train`` alone get right, one for each
        pair (learning rate, weight decay)."""
        return one_by_one(self, pairs, config, train, held)

    def fit(
        self,
        config: TrainConfig,
        out: str | Path | None = None,
        *,
        notes: Mapping[str, Any] | None = None,
        indices: Tensor | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Run:
        """:func:`waterbed.fit` of a copy with a new head, on the training images ``indices`` (all by default)."""
        tuned = with_new_head(self.model, self.data, self.trained, config.seed)
        data = self.data if indices is None else self._with_training_images(indices)
        modules = submodules(tuned, self.trained)
        return fit(tuned, data, self.objective, out, config=config, trained=modules, notes=notes, callbacks=callbacks)

    def fit_logistic(self, *_: Any, **__: Any) -> Run:
        """Raises :class:`UsageError`: the features of all images at once are those of a cache."""
        raise UsageError("solver='logistic' works on cached features; leave cache='auto'")

    def accuracy(self, model: nn.Module, indices: Tensor) -> float:
        """Percent of the training images ``indices`` that a fine-tuned model gets right, under the objective's attack
        if it has one."""
        attack = getattr(self.objective, "attack", None)
        held = Subset(self.data.train, indices.tolist())
        score = evaluate(model, held, [] if attack is None else [attack], workers=self.workers)
        return float(score.clean if attack is None else score.robust[attack.name])

    def score(self, model: nn.Module) -> Score:
        """:func:`waterbed.evaluate` of a fine-tuned model on the test images."""
        return evaluate(model, self.data.test, workers=self.workers)

    def _with_training_images(self, indices: Tensor) -> SimpleNamespace:
        """The data with only these training images."""
        names = ("test", "classes", "num_classes", "shape", "name", "flip")
        same = {name: getattr(self.data, name) for name in names if hasattr(self.data, name)}
        return SimpleNamespace(train=Subset(self.data.train, indices.tolist()), **same)
