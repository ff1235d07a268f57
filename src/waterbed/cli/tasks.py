"""Commands that take networks to other tasks: transfer, distance, choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from waterbed.cli.output import Words, print_rows


@dataclass
class Transfer:
    """Fine-tune runs on other tasks and compare their accuracy there."""

    runs: Positional[Words]
    """Run folders or files of networks."""
    targets: tuple[str, ...] = ("digits",)
    """Data sets or folders."""
    mode: str = "0"
    """linear (the head), 0 (head and last batch norm), 1 (head and all batch norms), 2 (everything)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One fine-tuning each."""
    epochs: int = 20
    batch_size: int = 128
    lr: tuple[float, ...] = ()
    """Largest learning rate; of several, the best on held-out training images. By default chosen from 0.01 to 1."""
    search_epochs: int | None = None
    """Epochs of the trainings that compare learning rates; by default all in the modes linear and 0, a quarter else."""
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    """one-cycle, cosine, step or constant."""
    milestones: tuple[int, ...] = ()
    """Epochs after which schedule=step falls to a tenth; by default 1/3 and 2/3 of all."""
    nesterov: bool = True
    """Nesterov's momentum."""
    augment: str = "none"
    """auto, crop-flip, crop or none."""
    views: int = 1
    """Augmented copies of each image that are cached (modes linear and 0)."""
    solver: str = "sgd"
    """sgd, or logistic (regularised logistic regression; mode linear)."""
    watch: int = 0
    """Record test accuracy after every epoch: on all test images where cached, on that many elsewhere."""
    num_train: int | None = None
    """At most so many training images of each target."""
    attack_eps: tuple[float, ...] = ()
    """Also attack 500 test images of every fine-tuned model (PGD-20, l2) at these radii: does robustness survive?"""
    bounds: int = 0
    """Also set both sides of Lemma 5.1 on so many test images beside every fine-tuned model."""
    distances: str | None = None
    """JSON of `waterbed distance SOURCE TARGET...`: gaps to the first run are set against distance from SOURCE."""
    root: str | None = None
    """Where named data sets lie."""
    out: str | None = None
    """A CSV file with one row a fine-tuning; beside it NAME.rows.jsonl, which keeps each as it is done, its epochs
    too, so that the same command goes on where it stopped; and with --distances NAME.png and NAME.tradeoff.json."""

    def __call__(self) -> None:
        from pathlib import Path

        from waterbed import PGD, transfer
        from waterbed.cli.common import check_writable, transfer_mode, unique_runs, write_text
        from waterbed.cli.tradeoff import read_distances, write_trade_off

        check_writable(self.out)
        distances = None if self.distances is None else read_distances(self.distances, self.targets)
        table = transfer(
            {name: run.model for name, run in unique_runs(self.runs)},
            self.targets,
            transfer_mode(self.mode),
            self.seeds,
            self.root,
            progress=True,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr or None,
            **({} if self.search_epochs is None else {"search_epochs": self.search_epochs}),
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            milestones=self.milestones,
            nesterov=self.nesterov,
            augment=self.augment,
            views=self.views,
            solver=self.solver,
            watch=self.watch,
            num_train=self.num_train,
            attacks=[PGD(eps, steps=20) for eps in self.attack_eps],
            num_bounded=self.bounds,
            keep=None if self.out is None else Path(self.out).with_suffix(".rows.jsonl"),
        )
        shown = {"accuracy": "Test accuracy [%]"}
        if any(row["metric"] == "mean per-class" for row in table.rows):
            shown["mean_per_class"] = "Mean per-class accuracy [%], what is reported for some of these"
        shown |= {attack: f"[%] under {attack}" for attack in table.attacks}
        for column, what in shown.items():
            layout = table.layout(column)
            rows = [[model, *cells] for model, cells in zip(layout.index, layout.to_numpy().tolist(), strict=True)]
            print_rows(["model", *layout.columns], rows, f"{what}, mode {self.mode}, ± half a 95 % interval over seeds")
        self._print_bounds(table)
        write_text(self.out, table.to_frame().to_csv(index=False))
        if distances is not None:
            write_trade_off(table, distances, self.out)

    def _print_bounds(self, table: Any) -> None:
        """Both forms of Lemma 5.1, means over seeds."""
        if self.bounds == 0:
            return
        sides = ["fisher_labels", "fisher_labels_bound", "fisher_noisy_logits", "fisher_features"]
        means = table.to_frame().groupby(["target", "model"], sort=False)[sides].mean()
        rows = [[target, model, *(f"{v:.3g}" for v in values)] for (target, model), *values in means.itertuples()]
        columns = ["target", "model", "tr F of labels", "<= its bound", "tr F of noisy logits", "<= of features"]
        print_rows(columns, rows, f"Lemma 5.1 [nats/pixel^2], mean over seeds and {self.bounds} test images")


@dataclass
class Distance:
    """Earth mover's distance between data sets, through the eyes of one network; symmetric, unlike accuracy gaps."""

    data: Positional[Words]
    """Two or more data sets or folders."""
    extractor: str
    """Run folder or exported network whose features are compared; distances by different ones do not compare."""
    num_samples: int | None = 5000
    """Training images of each; all if there are fewer."""
    min_source_count: int = 0
    """Leave out classes of the first of each pair with fewer images."""
    gamma: float = 0.01
    """Of the similarity exp(-gamma distance), as in the paper; it means nothing across extractors."""
    root: str | None = None
    """Where named data sets lie."""
    seed: int = 0
    out: str | None = None
    """A JSON file for the results."""

    def __call__(self) -> None:
        import math
        from dataclasses import asdict
        from itertools import combinations

        from waterbed import dataset_distance, load_model
        from waterbed.cli.common import check_writable, write_json
        from waterbed.errors import UsageError
        from waterbed.transfer_learning.transfer import load_for

        if len(self.data) < 2:
            raise UsageError(f"data={self.data!r} names {len(self.data)} set(s); a distance is between two or more")
        check_writable(self.out)
        model = load_model(self.extractor)
        loaded = [load_for(model, name, self.root) for name in self.data]
        rows, results = [], []
        for a, b in combinations(loaded, 2):
            d = dataset_distance(a, b, model, self.num_samples, self.min_source_count, seed=self.seed, progress=True)
            similarity = math.exp(-self.gamma * d.value)
            interval = f"[{d.low:.4g}, {d.high:.4g}]"
            rows.append([a.name, b.name, f"{d.value:.4g}", interval, f"{d.floor:.3g}", f"{similarity:.4g}"])
            results.append({"source": a.name, "target": b.name, "similarity": similarity, **asdict(d)})
        columns = ["from", "to", "distance", "95 % interval", "floor", "similarity"]
        print_rows(columns, rows, f"Distance by the features of {self.extractor}; floor: two halves of one set")
        write_json(self.out, {"extractor": self.extractor, "pairs": results})


@dataclass
class Choose:
    """Rank backbones for your data: a probe on their features, how sure the ranking is, and why."""

    target: str
    """Data set or folder with train/<class>/* and test/<class>/*; only its training images are used."""
    backbones: Words
    """Run folders or networks, standard and robust."""
    num_samples: int = 2000
    """Training images to use."""
    root: str | None = None
    """Where named data sets lie."""
    seed: int = 0
    out: str | None = None
    """A CSV file with one row a backbone."""

    def __call__(self) -> None:
        from waterbed import choose
        from waterbed.cli.common import check_writable, unique_runs, write_text

        check_writable(self.out)
        models = {name: run.model for name, run in unique_runs(self.backbones)}
        choice = choose(models, self.target, self.num_samples, seed=self.seed, root=self.root, progress=True)
        rows = [
            [
                c.name,
                c.probe,
                f"{c.behind[0]:.1f} [{c.behind[1]:.1f}, {c.behind[2]:.1f}]",
                f"{100 * c.best:.0f} %",
                f"{c.logme:.3f}",
                f"{c.h_score:.3f}",
                f"{c.leep:.3f}",
            ]
            for c in choice.candidates
        ]
        columns = [
            "backbone",
            "probe, held-out images",
            "points behind",
            "best",
            "LogME",
            "H-score",
            "LEEP",
        ]
        print_rows(columns, rows, f"Backbones for {choice.target}, by {choice.num_samples} images; higher is better")
        print(choice.reason)
        write_text(self.out, choice.to_frame().to_csv(index=False))
