"""Games that shares are sampled from: a function named on the command line, or the energy model's own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attribution import Batches, EnergyModel, Game, resolve
from attribution.permutations import FEWEST
from attribution.sampling import BatchGame, for_model
from readout.energy.model import asked
from readout.errors import Problem, SpecError
from readout.spec.model import Spec
from readout.text import visible

PREFIX, PREFIX_TOKENS = "@prefix", "@prefix_tokens"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How shares are sampled.

    Attributes:
        game: What coalitions cost, in joules at the facility.
        samples, tolerance: Orders drawn at first, and the error at which no more are.
        seed: Of the orders.
        named: Whether the game was named on the command line: it is then given the log's own columns.
    """

    game: BatchGame
    samples: int
    tolerance: float
    seed: int
    named: bool


def sampling(spec: Spec, model: EnergyModel, game: Callable[..., ArrayLike] | None, seed: int) -> Sampling | None:
    """What is to be sampled; None where shares are exact.

    Raises:
        SpecError: Exact shares of a game that has none, or too few samples.
    """
    wanted = asked(spec)
    if game is None and wanted.method != "sampled":
        return None
    if game is not None and wanted.method == "exact":
        message = "a game named by --game has no exact shares"
        raise SpecError([spec.source.problem(("attribution", "method"), message, "method: auto samples it")])
    if wanted.samples < FEWEST:
        message = f"expected at least {FEWEST}, got {wanted.samples}: fewer give no standard error"
        raise SpecError([spec.source.problem(("attribution", "samples"), message)])
    chosen = of_model(model) if game is None else for_model(game, model)
    return Sampling(chosen, wanted.samples, wanted.tolerance, seed, game is not None)


def of_model(model: EnergyModel) -> BatchGame:
    """The energy model's own game, as a function that is only asked."""
    terms = Game.of(model)

    def worth(batch: Mapping[str, NDArray[Any]], coalitions: NDArray[np.bool_]) -> ArrayLike:
        stays = resolve(
            Batches(
                batch=np.zeros(coalitions.shape[1]),
                prompt_tokens=batch["prompt_tokens"],
                output_tokens=batch["output_tokens"],
                start_step=batch["start_step"],
                end_step=batch["end_step"],
                prefix=batch.get(PREFIX),
                prefix_tokens=batch.get(PREFIX_TOKENS),
            )
        )
        return terms.worth(stays, coalitions) * model.pue

    return worth


def load_game(named: str) -> Callable[..., ArrayLike]:
    """The function of ``--game module:function`` or ``--game file.py:function``.

    The module is looked for where Python looks, and last of all in the working directory.

    Raises:
        SpecError: There is none, or it cannot be called.
    """
    where, _, name = named.rpartition(":")
    if not where or not name:
        raise _wrong(named, "expected module:function, such as attribution.games.rescheduled:rescheduled")
    try:
        module = _module(where)
    except ModuleNotFoundError as error:
        hint = "modules are found where Python looks for them and in the working directory; or name a file.py"
        raise _wrong(named, f"there is no module {visible(error.name or where)!r}", hint) from error
    except FileNotFoundError as error:
        raise _wrong(named, f"there is no file {visible(where)!r}") from error
    except Exception as error:
        raise _wrong(named, f"importing it failed: {type(error).__name__}: {visible(str(error), 200)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        has = ", ".join(key for key, value in vars(module).items() if callable(value) and key[0] != "_")
        raise _wrong(named, f"{visible(where)!r} has no function {visible(name)!r}", f"it has: {visible(has, 300)}")
    found: Callable[..., ArrayLike] = function
    return found


def _module(where: str) -> ModuleType:
    if not where.endswith(".py"):
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)
        return importlib.import_module(where)
    if not Path(where).is_file():
        raise FileNotFoundError(where)
    plan = importlib.util.spec_from_file_location(f"readout_game_{Path(where).stem}", where)
    assert plan is not None
    assert plan.loader is not None
    module = importlib.util.module_from_spec(plan)
    plan.loader.exec_module(module)
    return module


def _wrong(named: str, message: str, hint: str = "") -> SpecError:
    return SpecError([Problem(f"--game {visible(named, 120)}", message, hint)])
