"""sweep: one recipe at several eps and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import Positional, arg

from waterbed.cli.options import Force, Radii
from waterbed.cli.output import print_rows


@dataclass
class Sweep:
    """Train one recipe at several eps and seeds, evaluate and measure every network; one table and one picture."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE")]
    """TOML file with options of `waterbed train` (data, objective, model, epochs, ...)."""
    out: str
    """Folder for the runs, sweep.json and sweep.png; finished runs in it are not repeated."""
    eps: Radii = (0.0, 0.25, 0.5, 1.0)
    """Radii to train at; 0 is standard training."""
    seeds: int = 1
    """Number of seeds, counted from 0."""
    evaluated_eps: Radii = (0.5,)
    """Radii of the PGD-20 evaluation."""
    num_samples: int = 500
    """Images behind each measure."""
    num_evaluated: int | None = 1000
    """Test images behind the accuracies."""
    launcher: str = "here"
    """here (one after another), slurm (one job each, through submitit), local (all at once) or debug."""
    force: Force = False

    def goes_on(self) -> bool:
        """Whether the command continues where it was stopped."""
        return True

    def __call__(self) -> Any:
        from dataclasses import asdict, replace
        from pathlib import Path

        from waterbed.cli.options import from_config
        from waterbed.cli.train import Train
        from waterbed.errors import UsageError, check_count
        from waterbed.training.objectives import make_objective
        from waterbed.training.sweep import sweep

        recipe = from_config(Train, Path(self.recipe))
        if not isinstance(recipe.data, str):
            raise UsageError(f'the recipe {self.recipe!r} names no data; add a line such as data = "fashion-mini"')
        check_count("seeds", self.seeds)
        settings = asdict(recipe.config())
        for name in ("seed", "progress"):  # the sweep's own
            del settings[name]
        objective = recipe.objective_config()
        make_objective(objective)  # a wrong one is found before the data are read
        data, source = recipe.load_data()
        points = sweep(
            data,
            lambda seed: recipe.make_model(data, seed),
            lambda eps: make_objective(
                replace(objective, eps=eps, objective=objective.objective if eps > 0 else "standard")
            ),
            self.eps,
            range(self.seeds),
            self.out,
            evaluated_eps=self.evaluated_eps,
            num_samples=self.num_samples,
            num_evaluated=self.num_evaluated,
            launcher=self.launcher,
            force=self.force,
            notes={"source": source},
            **settings,
        )
        columns = ["eps", "seed", "clean [%]", *(f"{k} [%]" for k in points[0].robust), "weight norm"]
        columns += [name.replace("_", " ") for name in points[0].measures]
        rows = []
        for p in points:
            numbers = [f"{p.clean:.1f}", *(f"{v:.1f}" for v in p.robust.values()), f"{p.weight_norms[-1]:.2f}"]
            rows.append([p.eps, p.seed, *numbers, *(e.short() for e in p.measures.values())])
        # One column per network: there are more quantities than fit side by side.
        turned = [list(line) for line in zip(columns, *rows, strict=True)]
        print_rows(turned[0], turned[1:], f"Sweep over eps; ± is one standard error; {self.out}/sweep.png")
        return {"points": [p.to_dict() for p in points]}
