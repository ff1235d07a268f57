"""transfer: fine-tuning on other tasks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from waterbed.cli.options import Fetch, Force, Radii, Radius, Root, Runs, options_of, values_of
from waterbed.cli.output import is_first_process, print_rows, say, say_written, write_json, write_text
from waterbed.errors import check_choice
from waterbed.files import check_output, expanded, is_json_of, starts_with
from waterbed.text import csv_text
from waterbed.training.config import OF_IMAGES, OF_LABELS
from waterbed.training.objective_config import ObjectiveConfig, check_used
from waterbed.transfer_learning.settings import FINETUNING

if TYPE_CHECKING:
    from waterbed.training.run_folder import Run
    from waterbed.transfer_learning.table import TransferTable
    from waterbed.transfer_learning.tradeoff import TradeOff


INTERVALS = "± half a 95 % interval over seeds [95 % Wilson interval over n test images]"
# Of a training's settings, those that are options here; rows of a file are found again by the values that are not the
# defaults.
SETTINGS = ("epochs", "batch_size", "schedule", *OF_IMAGES, *OF_LABELS, "watch", "milestones", "nesterov")


@dataclass(kw_only=True)
class _Tasks:
    """Which networks are taken where."""

    runs: Runs
    targets: tuple[str, ...] = ("digits",)
    """Data sets or folders to fine-tune on."""
    mode: str = "0"
    """linear (the head), 0 (head and last batch norm), 1 (head and all batch norms), 2 (everything)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One fine-tuning per seed."""


# In --help the options of the last base come first.
@dataclass(kw_only=True)
class Transfer(
    options_of(FINETUNING, only=(*SETTINGS, "workers"), augment=str),
    options_of(ObjectiveConfig("standard"), eps=Radius),
    _Tasks,
):
    """Fine-tune runs on other tasks and compare their accuracy there."""

    NAMES_DATA: ClassVar[str] = "--targets"

    protocol: str = "tuned"
    """tuned (to each network and target), or the fixed settings of the paper: paper (backbones trained on CIFAR) or
    paper-imagenet."""
    lr: tuple[float, ...] = ()
    """Largest learning rate; of several, the best on held-out training images. By default chosen with the decay."""
    weight_decay: tuple[float, ...] = ()
    """Weight decay; of several, the best. By default chosen with the learning rate, or 5e-4 beside a given rate."""
    search_epochs: int | None = None
    """Epochs of the trainings that decide between rates and decays; by default all in modes linear and 0, else a
    quarter."""
    views: int = 1
    """Augmented copies of each image that are cached (modes linear and 0)."""
    solver: str | None = None
    """sgd, or logistic (regularised logistic regression; mode linear, and there the default unless an option speaks of
    training steps)."""
    num_train: int | None = None
    """At most this many training images of each target."""
    attack_eps: Radii = ()
    """Also attack 500 test images of every fine-tuned model (PGD-20, l2) at these radii: does robustness survive?"""
    bounds: int = 0
    """Also compute both sides of Lemma 5.1 for every fine-tuned model, on this many test images."""
    distances: str | None = None
    """JSON of `waterbed distance SOURCE TARGET...`, to compare gaps to the first run with the distance from SOURCE."""
    root: Root = None
    download: Fetch = False
    out: str | None = None
    """A CSV file with one row per fine-tuning. NAME.rows.jsonl beside it saves each row with its epochs as soon as it
    is done, so that the same command continues where it stopped. With --distances, NAME.png and NAME.tradeoff.json."""
    force: Force = False

    def goes_on(self) -> bool:
        """Whether the command continues where it was stopped."""
        return self.out is not None

    def __call__(self) -> Any:

        from waterbed.attacks.pgd import PGD
        from waterbed.cli.distance import read_distances
        from waterbed.cli.results import Kept
        from waterbed.cli.runs import unique_runs
        from waterbed.reporting.results import TRANSFERS
        from waterbed.training.objectives import make_objective
        from waterbed.transfer_learning.transfer import transfer

        self._check_outputs()
        objective = ObjectiveConfig(**values_of(ObjectiveConfig, self))
        check_used(objective)
        distances = None if self.distances is None else read_distances(self.distances, self.targets)
        runs = unique_runs(self.runs, self.download)
        kept = Kept(TRANSFERS, None, self.force, runs, None)
        table = transfer(
            {name: run.model for name, run in runs.items()},
            self.targets,
            _mode(self.mode),
            self.seeds,
            self.root,
            progress=True,
            protocol=self.protocol,
            **{n: v for n in SETTINGS if (v := getattr(self, n)) != getattr(FINETUNING, n)},
            workers=self.workers,
            lr=self.lr or None,
            weight_decay=self.weight_decay or None,
            **({} if self.search_epochs is None else {"search_epochs": self.search_epochs}),
            **({} if self.objective == "standard" else {"objective": make_objective(objective)}),
            views=self.views,
            solver=self.solver,
            num_train=self.num_train,
            attacks=[PGD(eps, steps=20) for eps in self.attack_eps],
            num_bounded=self.bounds,
            keep=None if self.out is None else expanded(self.out).with_suffix(".rows.jsonl"),
        )
        # Written before it is printed: whoever reads the output may have gone.
        for name, run in runs.items():
            kept.add(name, run, self._rows_of(name, run, table))
        write_text(self.out, csv_text(table.to_frame()))
        compared = None if distances is None else self._write_trade_off(table, distances)
        self._print_accuracies(table)
        if self.bounds > 0:
            self._print_bounds(table)
        if compared is not None:
            self._print_trade_off(compared)
        say_written(self.out)
        rows = [{k: v for k, v in row.items() if k != "history"} for row in table.rows]
        return {"rows": rows, **({} if compared is None else {"tradeoff": compared.to_dict()})}

    def _rows_of(self, name: str, run: Run, table: TransferTable) -> list[dict[str, Any]]:
        """The rows of a network, with what tells them apart from those of another call."""
        names = (*SETTINGS, "objective", "num_train", "views", "search_epochs")
        defaults = {f.name: f.default for f in fields(self)}
        more = {n: v for n in names if (v := getattr(self, n)) != defaults[n]}
        return [
            {**row, "epoch": run.record.get("epoch"), "settings": {n: str(v) for n, v in more.items()}}
            for row in table.rows
            if row["model"] == name
        ]

    def _check_outputs(self) -> None:
        """Before the work."""
        from waterbed.plots import is_our_png

        if self.out is None:
            return
        out = check_output(self.out, starts_with(b"model,target,mode,seed,"), self.force)
        if self.distances is not None:
            check_output(out.with_suffix(".png"), is_our_png, self.force)
            check_output(out.with_suffix(".tradeoff.json"), is_json_of("baseline", "gaps", "correlations"), self.force)

    def _print_accuracies(self, table: TransferTable) -> None:
        """Clean accuracy, the metric reported for a target where it is another, and accuracy under each attack."""
        titles = {"accuracy": "Test accuracy [%]"}
        if any(row["metric"] == "mean per-class" for row in table.rows):
            titles["mean_per_class"] = "Mean per-class accuracy [%], which is what is reported for some of these"
        titles |= {attack: f"[%] under {attack}" for attack in table.attacks}
        for column, title in titles.items():
            layout = table.layout(column)
            rows = [[model, *cells] for model, cells in zip(layout.index, layout.to_numpy().tolist(), strict=True)]
            print_rows(
                ["model", *layout.columns], rows, f"{title}, mode {self.mode}, protocol {self.protocol}: {INTERVALS}"
            )
        for row in table.rows:
            if row["edge"] and row["seed"] == self.seeds[0]:
                say(f"{row['model']} on {row['target']}: best at the {row['edge']} tried, beyond may be better")

    def _print_bounds(self, table: TransferTable) -> None:
        """Both forms of Lemma 5.1, means over seeds."""
        sides = ["fisher_labels", "fisher_labels_bound", "fisher_noisy_logits", "fisher_features"]
        means = table.to_frame().groupby(["target", "model"], sort=False)[sides].mean()
        rows = [[target, model, *(f"{v:.3g}" for v in values)] for (target, model), *values in means.itertuples()]
        columns = ["target", "model", "tr F of labels", "<= its bound", "tr F of noisy logits", "<= of features"]
        print_rows(columns, rows, f"Lemma 5.1 [nats/pixel^2], mean over seeds and {self.bounds} test images")

    def _write_trade_off(self, table: TransferTable, distances: dict[str, float]) -> TradeOff:
        """Compare the gaps to the first run with the distance; beside ``out`` picture and JSON."""

        from waterbed.plots import save_figure
        from waterbed.transfer_learning.tradeoff import trade_off

        result = trade_off(table, distances, table.rows[0]["model"])
        if self.out is not None and is_first_process():
            out = expanded(self.out)
            save_figure(result.plot(), out.with_suffix(".png"))
            write_json(out.with_suffix(".tradeoff.json"), result.to_dict())
        return result

    def _print_trade_off(self, result: TradeOff) -> None:
        columns = ["model", "target", "distance", "gap [points]"]
        rows = []
        for g in result.gaps.itertuples():
            interval = f" ± {g.half_width:.2f}" if g.seeds > 1 else ""
            rows.append([g.model, g.target, f"{g.distance:.4g}", f"{g.gap:+.2f}{interval}"])
        title = f"Accuracy minus that of {result.baseline}, ± half a 95 % interval over seeds"
        print_rows(columns, rows, title)
        columns = ["model", "targets", "Pearson", "Spearman", "p"]
        rows = [
            [c.model, c.targets, f"{c.pearson:.2f}", f"{c.spearman:.2f}", f"{c.p:.3f}"]
            for c in result.correlations.itertuples()
        ]
        print_rows(columns, rows, "Distance and gap: the farther, the larger?")


def _mode(text: str) -> int | str:
    """The mode as the library has it: 0, 1 and 2 are numbers."""
    from waterbed.transfer_learning.modes import MODES

    check_choice("mode", text, [str(mode) for mode in MODES])
    return text if text == "linear" else int(text)
