"""Exact Shapley shares of every batch's energy: modelled by an energy game, scaled to what was measured.

The energy of a coalition of requests is a sum of terms, and so is its Shapley value (``game.Game``). Nothing is
sampled; batches of any size, unless a term says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from attribution.batches import Batches, resolve
from attribution.codes import sum_by
from attribution.game import Game
from attribution.idle import gaps_wh, idle_floor_wh
from attribution.model import JOULES_PER_WH, EnergyModel
from attribution.naive import naive_shares
from attribution.stays import Stays
from attribution.terms import StepTable

Floats = NDArray[np.float64]
Number = TypeVar("Number", np.float64, np.int64)

EFFICIENCY_TOLERANCE = 1e-9  # of a batch's energy: what shares may miss it by, all of it rounding


@dataclass(frozen=True, slots=True)
class Measured:
    """How measured batch energy was used.

    Attributes:
        used: Batches whose measured energy was distributed by the shares.
        missing: Batches without a measurement; their modelled energy is distributed.
        invalid: Batches whose measurement is zero, negative, infinite, differs between its rows or is below what the
            model's GPUs draw idle for as long, or for which the model has no energy to scale; their modelled energy is
            distributed.
        below_idle: Those of them that are below idle.
        factor_median, factor_low, factor_high: Measured over modelled energy of the used batches; None without any.
    """

    used: int
    missing: int
    invalid: int
    below_idle: int
    factor_median: float | None
    factor_low: float | None
    factor_high: float | None


@dataclass(frozen=True, slots=True)
class Shares:
    """Facility energy by request, PUE and host in; arrays are (rows,) as in the log, NaN where unattributed.

    Attributes:
        wh: The request's Shapley share: of its batch's measured energy where there is one, else of the modelled.
        modelled_wh: Its share of the modelled energy.
        batch_wh: The energy of its whole batch that ``wh`` shares out.
        batch_size: Attributed requests in its batch, 0 where unattributed.
        naive: The same energy under each rule of thumb: ``per_token``, ``per_request``, ``provisioned``.
        n_batches, n_requests: Attributed.
        total_wh: Sum of ``wh``.
        components: Wh by term of the energy game; they sum to ``total_wh``.
        by_term: Wh by term and request; None unless asked for.
        leave_one_out: What the batch would have saved without the request, in Wh of ``wh``'s scale. Such values do
            not sum to the batch: what requests share is in none of them. None unless asked for.
        beyond_table: Share of the decode steps whose number of active requests the model's step table does not hold,
            so that their energy is a guess; None where the model has no table.
        factor: Measured over modelled energy of its batch; NaN where the modelled energy stands.
        batch_factor: (n_batches,) The same by batch, batches in the order of their ids.
        concurrency: Mean number of active requests over the steps of its stay, itself counted; 1 for a request without
            steps. None unless asked for.
        idle_wh: Energy of idle GPUs in steps in which nobody was active, in no share; 0 for a game without a model.
        decode_steps: Steps with anyone active, over all batches, of which ``beyond_table`` is a part; else 0.
        efficiency_error_wh: Largest difference between a batch's energy and the sum of its shares.
        efficiency_error: The same, over the batch's energy.
        measured: None where the log has no measured energy.
        unattributed: Reason → rows left out.
        incomplete_batches: Attributed batches that lost some of their rows, whose energy the others then carry.
    """

    wh: Floats
    modelled_wh: Floats
    batch_wh: Floats
    batch_size: NDArray[np.int64]
    naive: Mapping[str, Floats]
    n_batches: int
    n_requests: int
    total_wh: float
    components: Mapping[str, float]
    by_term: Mapping[str, Floats] | None
    leave_one_out: Floats | None
    beyond_table: float | None
    factor: Floats
    batch_factor: Floats
    concurrency: Floats | None
    idle_wh: float
    decode_steps: float
    efficiency_error_wh: float
    efficiency_error: float
    measured: Measured | None
    unattributed: Mapping[str, int]
    incomplete_batches: int

    @property
    def efficient(self) -> bool:
        """Whether the shares of every batch sum to its energy; if not, they must not be used."""
        return self.efficiency_error <= EFFICIENCY_TOLERANCE


def attribute(
    batches: Batches,
    model: EnergyModel | Game,
    *,
    by_term: bool = False,
    leave_one_out: bool = False,
    concurrency: bool = False,
) -> Shares:
    """Shares the energy of every batch among its requests.

    Rows that cannot be attributed (a null, a negative count, an end before its start) are left out and counted in
    ``unattributed``, never an error. One sort of 2 × rows events; memory in proportion to the rows.

    Args:
        batches: The requests, whole batches of them: drop none before, or its mates carry its energy.
        model: Parameters of the energy game; or a game itself, in joules at the facility.
        by_term: Also give every request's share of every term.
        leave_one_out: Also give the leave-one-out values.
        concurrency: Also give how many requests were active beside each.

    Raises:
        ValueError: A term of the game has no exact shares for a batch of such a size.
    """
    stays = resolve(batches)
    if isinstance(model, EnergyModel):
        game, to_wh, idle_wh = Game.of(model), model.pue / JOULES_PER_WH, idle_floor_wh(stays, model)
    else:
        game, to_wh, idle_wh = model, 1 / JOULES_PER_WH, np.zeros(stays.n_batches)
    totals = {name: term.totals(stays) * to_wh for name, term in game.terms.items()}
    modelled_batch = np.sum(list(totals.values()), axis=0) if totals else np.zeros(stays.n_batches)
    parts = {name: share * to_wh for name, share in game.components(stays).items()} if by_term else None
    modelled = sum(parts.values(), np.zeros(stays.batch.size)) if parts is not None else game.shares(stays) * to_wh
    calibrated, measured = _calibrate(stays, modelled_batch, idle_wh)
    factor = np.where(np.isnan(calibrated), 1.0, calibrated)
    scale = factor[stays.batch]
    wh, batch_wh = modelled * scale, modelled_batch * factor
    with np.errstate(divide="ignore", invalid="ignore"):  # shares that are no numbers add up to nothing
        error = np.nan_to_num(np.abs(sum_by(stays.batch, wh, stays.n_batches) - batch_wh), nan=np.inf, posinf=np.inf)
        relative = np.nan_to_num(np.where(error > 0, error / np.abs(batch_wh), 0.0), nan=np.inf, posinf=np.inf)

    rows = np.size(batches.prompt_tokens)
    tables = [term for term in game.terms.values() if isinstance(term, StepTable)]
    return Shares(
        wh=_spread(wh, stays, rows),
        modelled_wh=_spread(modelled, stays, rows),
        batch_wh=_spread(batch_wh[stays.batch], stays, rows),
        batch_size=_spread(stays.size[stays.batch], stays, rows, missing=0),
        naive={rule: _spread(share, stays, rows) for rule, share in naive_shares(stays, batch_wh).items()},
        n_batches=stays.n_batches,
        n_requests=stays.batch.size,
        total_wh=float(wh.sum()),
        components={name: float(whole @ factor) for name, whole in totals.items()},
        by_term=None if parts is None else {name: _spread(x * scale, stays, rows) for name, x in parts.items()},
        leave_one_out=_spread(game.marginals(stays) * to_wh * scale, stays, rows) if leave_one_out else None,
        beyond_table=max((table.beyond(stays) for table in tables), default=None),
        factor=_spread(calibrated[stays.batch], stays, rows),
        batch_factor=calibrated,
        concurrency=_spread(_concurrency(stays), stays, rows) if concurrency else None,
        idle_wh=float(gaps_wh(stays, model).sum()) if isinstance(model, EnergyModel) else 0.0,
        decode_steps=float(stays.timeline.length.sum()) if tables else 0.0,
        efficiency_error_wh=float(error.max(initial=0.0)),
        efficiency_error=float(relative.max(initial=0.0)),
        measured=measured,
        unattributed=stays.unattributed,
        incomplete_batches=stays.incomplete_batches,
    )


def carbon_g(wh: Floats, g_per_kwh: float | Floats) -> Floats:
    """Grams of CO2e of facility energy, location-based (SCI, ISO/IEC 21031: E × I); no embodied share.

    Args:
        wh: (rows,) Facility energy, PUE in.
        g_per_kwh: Grid intensity, one or (rows,).
    """
    return wh / 1000 * g_per_kwh


def _calibrate(stays: Stays, modelled_wh: Floats, idle_wh: Floats) -> tuple[Floats, Measured | None]:
    """Measured over modelled energy of each batch, NaN where there is nothing to scale by; and how that went."""
    factor = np.full(stays.n_batches, np.nan)
    if stays.measured_wh is None:
        return factor, None
    given = ~np.isnan(stays.measured_wh)
    with np.errstate(invalid="ignore"):
        below = given & (stays.measured_wh < idle_wh)
    used = given & (modelled_wh > 0) & ~below
    factor[used] = stays.measured_wh[used] / modelled_wh[used]
    n_used, n_unusable = int(np.count_nonzero(used)), int(np.count_nonzero(given & ~used))
    seen = factor[used]
    return factor, Measured(
        used=n_used,
        missing=stays.n_batches - n_used - n_unusable - stays.measured_invalid,
        invalid=stays.measured_invalid + n_unusable,
        below_idle=int(np.count_nonzero(below)),
        factor_median=float(np.median(seen)) if n_used else None,
        factor_low=float(seen.min()) if n_used else None,
        factor_high=float(seen.max()) if n_used else None,
    )


def _concurrency(stays: Stays) -> Floats:
    line = stays.timeline
    return np.where(stays.steps > 0, line.over_stays(line.length * line.active) / np.maximum(stays.steps, 1), 1.0)


def _spread(values: NDArray[Number], stays: Stays, rows: int, missing: float = np.nan) -> NDArray[Number]:
    """Values of the attributed rows, back in the order of the log."""
    if values.size == rows:
        return values
    spread = np.full(rows, missing, dtype=values.dtype)
    spread[stays.rows] = values
    return spread
