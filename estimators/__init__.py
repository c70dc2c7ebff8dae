"""Statistics: numpy arrays in, a frozen ``Estimate`` out. Nothing here knows a spec, a file or a data frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from estimators.block_regression import block_quantile, block_regression
from estimators.cells import Cells
from estimators.difference_in_means import difference_in_means
from estimators.estimate import Estimate
from estimators.inference import EstimationError, minimum_detectable_effect
from estimators.leave_one_out import leave_one_out_blocks, leave_one_out_means, share_of_top
from estimators.moments import Moments
from estimators.proportions import chi_square_srm
from estimators.quantiles import Histogram, quantile, quantile_effect

METHODS: Mapping[str, Callable[..., Estimate]] = {
    "difference_in_means": difference_in_means,
    "block_regression": block_regression,
}

__all__ = [
    "METHODS",
    "Cells",
    "Estimate",
    "EstimationError",
    "Histogram",
    "Moments",
    "block_quantile",
    "block_regression",
    "chi_square_srm",
    "difference_in_means",
    "leave_one_out_blocks",
    "leave_one_out_means",
    "minimum_detectable_effect",
    "quantile",
    "quantile_effect",
    "share_of_top",
]
