"""What an attribution of a whole log came to, added up over the parts that it was computed in."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attribution.cold_start import ColdStarts
from attribution.sampling import Sampled, method_name
from attribution.shapley import EFFICIENCY_TOLERANCE, Shares
from readout.errors import Problem, ReadoutError

# Beyond these the model and the meter do not speak of the same machine.
USUAL_FACTOR = (0.8, 1.25)
FAR_FACTOR = (0.5, 2.0)
# Decode steps of a stay for each token written: one, or fewer where several tokens are guessed at once.
USUAL_PACE = (0.2, 2.0)


@dataclass(slots=True)
class Totals:
    """Sums over the attributed requests of a log.

    Attributes:
        batches, requests: Attributed.
        wh: Energy of the batches, without that of model loads.
        components: Wh by term of the energy model.
        efficiency_error_wh, efficiency_error: The largest difference between a batch's energy and its shares, in Wh and
            in parts of the batch.
        metered: Whether the log has a column of measured energy.
        missing, invalid, below_idle: Batches whose modelled energy stands, and why; the last are some of the invalid.
        factors: Measured over modelled energy of the other batches.
        unattributed: Reason → rows without a share.
        incomplete: Batches that lost such rows.
        idle_wh: Energy of idle GPUs inside batches, in no share.
        beyond_table: Share of the decode steps that the model's step table does not hold; None without a table.
        decode_steps: Steps with anyone active.
        cold: How the energy of loads was spread; None where the spec names none.
        drawn: Whether a game was asked, of which idle time is not known.
        samples: The most orders drawn for a batch; 0: every share is exact.
        sampled, lopsided, unreached: Batches whose shares were drawn, those of few requests with most of the energy,
            and those whose error stayed above the tolerance.
        relative_error: Largest, over batches, of the mean standard error over the mean share.
        steps, tokens: Of requests that stay from one step to another: steps of their stays, and tokens they wrote.
        no_intensity, bad_intensity: Rows with energy and without a grid intensity, or with an impossible one.
    """

    batches: int = 0
    requests: int = 0
    wh: float = 0.0
    components: dict[str, float] = field(default_factory=dict)
    efficiency_error_wh: float = 0.0
    efficiency_error: float = 0.0
    metered: bool = False
    missing: int = 0
    invalid: int = 0
    below_idle: int = 0
    factors: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    unattributed: dict[str, int] = field(default_factory=dict)
    incomplete: int = 0
    idle_wh: float = 0.0
    beyond_table: float | None = None
    decode_steps: float = 0.0
    cold: ColdStarts | None = None
    drawn: bool = False
    samples: int = 0
    sampled: int = 0
    lopsided: int = 0
    unreached: int = 0
    relative_error: float = 0.0
    steps: float = 0.0
    tokens: float = 0.0
    no_intensity: int = 0
    bad_intensity: int = 0

    def add(self, shares: Shares, drawn: Sampled | None = None) -> None:
        """Take in a part's shares, and how they were drawn.

        Raises:
            ReadoutError: Shares that do not add up to their batch's energy.
        """
        if not shares.efficiency_error <= EFFICIENCY_TOLERANCE:
            message = f"shares miss a batch's energy by {shares.efficiency_error:.1e} of it"
            raise ReadoutError([Problem("attribution", message)])
        if drawn is not None:
            self.drawn = True
            self.samples = max(self.samples, int(drawn.samples.max(initial=0)))
            self.sampled += drawn.n_sampled
            self.lopsided += drawn.n_lopsided
            self.unreached += drawn.n_unreached
            self.relative_error = max(self.relative_error, drawn.relative_error)
        self.batches += shares.n_batches
        self.requests += shares.n_requests
        self.wh += shares.total_wh
        for name, wh in shares.components.items():
            self.components[name] = self.components.get(name, 0.0) + wh
        self.efficiency_error_wh = max(self.efficiency_error_wh, shares.efficiency_error_wh)
        self.efficiency_error = max(self.efficiency_error, shares.efficiency_error)
        if shares.measured is not None:
            self.metered = True
            self.missing += shares.measured.missing
            self.invalid += shares.measured.invalid
            self.below_idle += shares.measured.below_idle
            self.factors = np.concatenate([self.factors, shares.batch_factor[~np.isnan(shares.batch_factor)]])
        for reason, rows in shares.unattributed.items():
            self.unattributed[reason] = self.unattributed.get(reason, 0) + rows
        self.incomplete += shares.incomplete_batches
        self.idle_wh += shares.idle_wh
        if shares.beyond_table is not None:
            known, more = (self.beyond_table or 0.0) * self.decode_steps, shares.beyond_table * shares.decode_steps
            self.beyond_table = (known + more) / max(self.decode_steps + shares.decode_steps, 1.0)
        self.decode_steps += shares.decode_steps

    def add_stays(self, start: NDArray[np.float64], end: NDArray[np.float64], tokens: NDArray[np.float64]) -> None:
        """Take in the stays of a part's requests, in steps, and the tokens that they wrote."""
        known = (end >= start) & (tokens > 0) & np.isfinite(end - start)
        self.steps += float((end - start)[known].sum())
        self.tokens += float(tokens[known].sum())

    @property
    def odd_pace(self) -> float | None:
        """Steps of a stay for each token written, where so many or few say that steps are not what was counted."""
        if self.tokens == 0:
            return None
        pace = self.steps / self.tokens
        return None if USUAL_PACE[0] <= pace <= USUAL_PACE[1] else pace

    @property
    def method(self) -> str:
        """Name of how shares were found; of several numbers of orders, the largest."""
        return method_name(self.samples)

    @property
    def tier(self) -> int:
        """3 where the energy of any batch was measured, else 2."""
        return 3 if self.factors.size else 2

    @property
    def factor_median(self) -> float | None:
        """The middle calibration factor."""
        return float(np.median(self.factors)) if self.factors.size else None

    @property
    def far(self) -> int:
        """Batches whose measured energy is less than half or more than twice the modelled."""
        return int(np.count_nonzero((self.factors < FAR_FACTOR[0]) | (self.factors > FAR_FACTOR[1])))

    @property
    def off(self) -> bool:
        """Whether the middle factor says that the model speaks of another machine."""
        median = self.factor_median
        return median is not None and not USUAL_FACTOR[0] <= median <= USUAL_FACTOR[1]

    def measured(self) -> dict[str, int | float | None] | None:
        """How measured energy was used; None where the log has none."""
        if not self.metered:
            return None
        factors = self.factors
        return {
            "used": int(factors.size),
            "missing": self.missing,
            "invalid": self.invalid,
            "below_idle": self.below_idle,
            "factor_median": self.factor_median,
            "factor_low": float(factors.min()) if factors.size else None,
            "factor_high": float(factors.max()) if factors.size else None,
            "factor_far": self.far,
        }
