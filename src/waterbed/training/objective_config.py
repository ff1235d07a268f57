"""Which objective a recipe names, and what it trains against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from waterbed.attacks.radius import NORMS
from waterbed.errors import UsageError
from waterbed.own_code import OWN_CODE

OBJECTIVES = (
    "standard",
    "adversarial",
    "trades",
    "mart",
    "awp",
    "trades-awp",
    "feature",
    "n-fgsm",
    "atta",
    "free",
    "gaussian-noise",
)


def _setting(default: Any, help: str, **valid: Any) -> Any:
    return field(default=default, metadata={"help": help, **valid})


# Which objectives have a use for the settings that not all have.
USED_BY = {"beta": ("trades", "mart", "trades-awp"), "gamma": ("awp", "trades-awp")}


@dataclass(frozen=True)
class ObjectiveConfig:
    """An objective by its name; :func:`waterbed.training.objectives.make_objective` builds it.

    >>> ObjectiveConfig("trades").beta
    6.0
    """

    objective: str = _setting(
        "adversarial",
        "standard, adversarial (eq. 1), trades (eq. 2), mart, awp and trades-awp (which also perturb the weights), "
        "feature (robust features of a pretrained network, without labels), n-fgsm, atta and free (cheaper adversarial "
        "training, watched under PGD-10), gaussian-noise, or package.module:function, your own, which returns an "
        "objective for attack=, and for beta= and gamma= if it takes them",
        choices=(*OBJECTIVES, OWN_CODE),
    )
    eps: float | str = _setting(0.5, "radius of the ball, in pixel units [0, 1], such as 0.5 or 8/255")
    norm: str = _setting("l2", f"norm of the ball: {', '.join(NORMS[:-1])} or {NORMS[-1]}")
    attack_steps: int = _setting(7, "steps of the attack; in free, passes over each batch; n-fgsm makes one")
    beta: float = _setting(6.0, "weight of the KL divergence in trades, trades-awp and mart")
    gamma: float = _setting(5e-3, "size of the perturbation of each layer's weights in awp, relative to their norm")


def check_used(config: ObjectiveConfig) -> None:
    """Raise :class:`UsageError` for a setting other than its default that the named objective has no use for.

    >>> check_used(ObjectiveConfig("adversarial", beta=3.0))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: beta=3.0 has no use in objective='adversarial'; leave it out, or choose 'trades', ...
    """
    for name, objectives in USED_BY.items():
        value = getattr(config, name)
        if (
            config.objective not in objectives
            and config.objective in OBJECTIVES
            and value != getattr(ObjectiveConfig, name)
        ):
            listed = ", ".join(map(repr, objectives))
            raise UsageError(
                f"{name}={value!r} has no use in objective={config.objective!r}; leave it out, or choose {listed}"
            )
