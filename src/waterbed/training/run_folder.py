"""The run folder: config.toml, environment.json, metrics.jsonl, weights.safetensors + card, two states."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w
from matplotlib.figure import Figure
from torch import Tensor, nn

from waterbed.environment import environment
from waterbed.errors import UsageError, check_choice
from waterbed.files import expanded, locked, make_folder, read_toml, remainders, to_json, write_atomic
from waterbed.models.checkpoints import is_whole, load_model, read_card, save_model, write_model
from waterbed.models.hub import PREFIX, check_repository, find_weights, publish
from waterbed.tables import html_table
from waterbed.training.config import RESUMES, TrainConfig
from waterbed.training.model_card import evaluations, measurements, model_card
from waterbed.training.state_files import KEYS, STATE, WEIGHTS, Keys, finish_writing, read_state, write_state
from waterbed.training.summary import history_figure, summary

SCHEMA = 1
CONFIG, ENVIRONMENT, METRICS = "config.toml", "environment.json", "metrics.jsonl"
# Of a process that was killed; only the one that holds the run's lock writes these.
OWN_TEMPORARIES = tuple(
    f".{name}." for name in (CONFIG, ENVIRONMENT, METRICS, WEIGHTS, "weights.json", "next-state.pt", "next-diverged.pt")
)


@dataclass
class Run:
    """A training: the network, one record an epoch, the folder (None if nothing was written) and its config."""

    model: nn.Module
    history: list[dict[str, Any]] = field(default_factory=list)
    path: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Run:
        """Read a run folder, the .safetensors file of :meth:`export`, or any file that ``load_model`` reads.

        "hf:owner/name" is :meth:`from_pretrained` from the local cache. What other projects wrote comes without config
        and history. ``model`` is an instance to load a user's own network into.
        """
        if str(path).startswith(PREFIX):
            return cls.from_pretrained(str(path), model=model)
        path = expanded(path, "path")
        if path.is_file():
            beside = path.with_suffix(".json")
            card = read_card(beside) if path.suffix == ".safetensors" and beside.is_file() else {}
            return cls(load_model(path, "auto", model), card.get("history", []), path, card.get("config", {}))
        folder = RunFolder(path)
        return cls(load_model(path, "run", model), folder.history(), folder.path, folder.config())

    def export(self, path: str | Path, notes: Mapping[str, Any] | None = None, force: bool = False) -> None:
        """Write weights, config and history as ``path`` (.safetensors) with its JSON card, to keep or to share.

        Where the data lay on this machine is left out; ``notes`` adds to the card; ``force`` replaces a file that is
        not ours.
        """
        config = {key: value for key, value in self.config.items() if key != "source"}
        card = {"classes": self.config["data"]["classes"], "epoch": self.record.get("epoch"), "config": config}
        save_model(self.model, path, {**card, "history": self.history, **(notes or {})}, force)

    @classmethod
    def from_pretrained(cls, name: str, *, model: nn.Module | None = None, download: bool = False) -> Run:
        """The run that :meth:`push_to_hub` published: network, config and history.

        Args:
            name: "owner/name", "hf:owner/name@revision" or "hf:owner/name:file". Weights of other projects come without
                config and history.
            model: an instance to load a user's own network into; no code that the repository names is imported.
            download: fetch what the local Hugging Face cache lacks. False makes no connection.

        Raises:
            UsageError: no such repository, nothing of it in the cache and ``download`` False, weights that do not fit.
        """
        network = load_model(name, "huggingface", model, download=download)
        path, _ = find_weights(name, download=False)
        beside = path.with_suffix(".json")
        card = read_card(beside) if path.suffix == ".safetensors" and beside.is_file() else {}
        return cls(network, card.get("history", []), path, card.get("config", {}))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        evaluation: Any = None,
        measures: Any = None,
        license: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload a run of waterbed",
    ) -> str:
        """Publish weights, config, history and a model card (README.md) in one commit; returns the page's address.

        Args:
            repo_id: "owner/name"; the repository is created where there is none.
            evaluation: what ``evaluate`` or ``evaluate_standard`` returned, or a list of them, for the card. By default
                evaluation.json in the run's folder, as ``waterbed evaluate RUN`` writes it.
            measures: what ``measure`` returned; by default measures.json in the run's folder.
            license: of the weights, such as "mit".
            private: whether a new repository is private; None leaves it to the account's settings.
            token: of the Hugging Face account; by default the one that is logged in.
            message: of the commit.

        Where the data lay on this machine is left out.

        Raises:
            UsageError: a run without a record of its training, huggingface_hub missing, no permission or connection.
            UsageTypeError: ``evaluation`` or ``measures`` are no results.
        """
        if "data" not in self.config:
            raise UsageError("the run does not record its training, which the model card describes; train it with fit")
        check_repository(repo_id)
        folder = None if self.path is None or self.path.is_file() else self.path
        reports, measured = evaluations(evaluation, folder), measurements(measures, folder)
        environment = {} if folder is None else json.loads((folder / ENVIRONMENT).read_text())
        text = model_card(repo_id, self.config, self.record, reports, measured, environment, license)
        with TemporaryDirectory() as place:
            weights = Path(place) / "model.safetensors"
            self.export(weights)
            files = {"README.md": text.encode(), **{f.name: f for f in (weights, weights.with_suffix(".json"))}}
            return publish(repo_id, files, message, private, token)

    @property
    def record(self) -> dict[str, Any]:
        """The record of the epoch whose weights the model has: the best on the held-out images, else the last."""
        key = "validation_robust" if any("validation_robust" in r for r in self.history) else "validation_clean"
        return max(self.history, key=lambda r: (r.get(key, r["epoch"]), -r["epoch"] if key in r else 0), default={})

    def _summary(self) -> dict[str, str]:
        return summary(self.model, self.history, self.path, self.config, self.record)

    def plot(self) -> Figure:
        """Accuracies after each epoch, and beside them the loss."""
        return history_figure(self.history)

    def __repr__(self) -> str:
        return f"Run({', '.join(f'{name}={value}' for name, value in self._summary().items())})"

    def _repr_html_(self) -> str:
        return html_table(["what", "value"], self._summary().items(), "Run")


class RunFolder:
    """The files of one run. Each is replaced as a whole, so what was written stays readable."""

    def __init__(self, path: str | Path, keys: Keys = KEYS) -> None:
        self.path, self.keys = expanded(path), keys

    def is_run(self) -> bool:
        """Whether the folder holds a run (of any schema)."""
        return (self.path / CONFIG).is_file()

    def check_free(self) -> None:
        """Raise if the folder holds anything but a run and what a process that was killed before it left."""
        if self.is_run() or not self.path.exists():
            return
        if not self.path.is_dir() or set(self.path.iterdir()) - set(remainders(self.path)):
            raise UsageError(f"out={str(self.path)!r} exists and is not a run folder; choose another out=")

    def replace(self, config: dict[str, Any]) -> None:
        """Config and environment of a run that has no epoch yet."""
        text = _toml(config)
        make_folder(self.path)
        write_atomic(self.path / CONFIG, text.encode())
        write_atomic(self.path / ENVIRONMENT, to_json(environment()).encode())

    def config(self) -> dict[str, Any]:
        """The recorded config without its schema; :class:`UsageError` if damaged or of another schema."""
        file = self.path / CONFIG
        try:
            config = read_toml(file)
        except (OSError, ValueError) as error:
            raise UsageError(f"{str(file)!r} cannot be read ({type(error).__name__}); name a run folder") from error
        schema = config.pop("schema", None)
        if schema != SCHEMA:
            raise UsageError(
                f"the run folder {str(self.path)!r} has schema {schema!r}, this version reads {SCHEMA}; "
                "choose another folder or the version that wrote it"
            )
        return config

    def check_same(self, config: dict[str, Any]) -> None:
        """Raise unless the folder's run was started with this config; the first difference is named."""
        # Where the data lie may change; what they are may not. A setting that is not recorded is younger than the run,
        # which was made with what is now its default.
        recorded, config = (
            TrainConfig().record() | _leaves({k: v for k, v in c.items() if k != "source"})
            for c in (self.config(), config)
        )
        for key in sorted({*recorded, *config}):
            if recorded.get(key) != config.get(key):
                raise UsageError(
                    f"out={str(self.path)!r} holds a run with {key}={recorded.get(key)!r}, not {config.get(key)!r}; "
                    "choose another out= or the recorded config"
                )

    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, one an epoch."""
        file = self.path / METRICS
        try:
            return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        except (OSError, ValueError) as error:
            raise UsageError(f"{str(file)!r} is damaged ({type(error).__name__}); restore it or train again") from error

    def save(
        self,
        state: dict[str, Any],
        history: list[dict[str, Any]],
        weights: nn.Module | None,
    ) -> None:
        """Training state, metrics and (if they are the ones to keep) weights after an epoch.

        The state comes first and holds all the rest, so a run stopped in between is completed by :meth:`complete`.
        """
        self.save_state(state)
        write_atomic(self.path / METRICS, _lines(history))
        if weights is not None:
            self._save_weights(weights, None, history[-1]["epoch"])

    def complete(
        self, history: list[dict[str, Any]], network: nn.Module, tensors: dict[str, Tensor] | None, epoch: int
    ) -> None:
        """Write metrics and weights again that are not those of the state: one that a stopped process did not write, or
        that was damaged or deleted since.

        Args:
            tensors: the weights to keep, by the names that ``network`` has for them; None if the state has only others.
            epoch: whose weights they are.
        """
        if not (self.path / METRICS).is_file() or (self.path / METRICS).read_bytes() != _lines(history):
            write_atomic(self.path / METRICS, _lines(history))
        if tensors is not None and not is_whole(self.path / WEIGHTS, epoch):
            self._save_weights(network, tensors, epoch)

    def _save_weights(self, network: nn.Module, tensors: dict[str, Tensor] | None, epoch: int) -> None:
        config = self.config()
        card = {"classes": config["data"]["classes"], "epoch": epoch, "config": config}
        write_model(network, self.path / WEIGHTS, card, tensors)

    def save_state(self, state: dict[str, Any], name: str = STATE) -> None:
        """The training state with its checksum; the one before is kept as previous-state.pt."""
        write_state(self.path, state, name)

    def state(self) -> dict[str, Any] | None:
        """The last training state that is whole, or None before the first."""
        return read_state(self.path, self.keys)


def _toml(config: dict[str, Any]) -> str:
    try:
        return tomli_w.dumps({"schema": SCHEMA, **config})
    except TypeError as error:
        raise UsageError(f"the run's config cannot be written as TOML ({error}); mend data, model or notes") from error


def _lines(history: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in history).encode()


@contextmanager
def open_run(
    out: str | Path | None, config: dict[str, Any], resume: str, write: bool = True, keys: Keys = KEYS
) -> Iterator[tuple[RunFolder | None, dict[str, Any] | None]]:
    """The folder of a training that starts or goes on, and its saved state (None at the start).

    Inside, no other process can open the folder to write (``write=False`` only reads).
    """
    check_choice("resume", resume, RESUMES)
    if out is None:
        yield None, None
        return
    folder = RunFolder(out, keys)
    if not write:
        yield folder, _saved(folder, config, resume, write) if folder.is_run() else None
        return
    folder.check_free()
    _toml(config)  # one that cannot be written leaves no folder
    make_folder(folder.path)
    with locked(folder.path / ".lock", wait=False):
        folder.check_free()
        if folder.is_run():
            saved = _saved(folder, config, resume, write)
        else:
            folder.replace(config)
            saved = None
        for file in remainders(folder.path):
            if file.name.startswith(OWN_TEMPORARIES):
                file.unlink()
        yield folder, saved


def _saved(folder: RunFolder, config: dict[str, Any], resume: str, write: bool) -> dict[str, Any] | None:
    """The state that a run goes on from; None if it has none yet."""
    out = str(folder.path)
    if resume == "never":
        raise UsageError(f"out={out!r} already holds a run and resume='never'; choose another out=")
    folder.config()  # refuses another schema before anything is written
    if write:
        finish_writing(folder.path)
    state = folder.state()
    trained = any((folder.path / name).is_file() for name in (METRICS, WEIGHTS))
    if state is None and not trained:  # stopped before its first state: nothing is lost by another config
        if write:
            folder.replace(config)
        return None
    folder.check_same(config)
    if state is None and len(folder.history()) >= min(2, config["epochs"]):
        raise UsageError(f"out={out!r} has weights but no state.pt to go on from; choose another out=")
    return state  # None in the first epoch, which is trained again to the same weights


def _leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config with dotted keys, as TOML gives it back."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
