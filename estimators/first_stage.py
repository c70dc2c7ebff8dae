"""How strongly instruments move treatment and outcome: the effective first-stage F, and whether instruments agree.

Montiel Olea and Pflueger (2013), *A robust test for weak instruments*, Journal of Business & Economic Statistics 31:
the effective F is ``d' P d / tr(W)``, ``W`` the robust covariance of the coefficients on orthonormal instruments. With
one instrument it is the robust F. The usual F, and the robust F of several instruments, mislead where errors are not
alike. Hansen (1982), *Large sample properties of generalized method of moments estimators*, for the test of
over-identification.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.inference import two_sided_p
from estimators.instruments import Instrumented
from estimators.ols import Matrix, Vector


def effective_f(data: Instrumented) -> float | None:
    """The effective F; None where treatment follows the instruments to the letter and has no error."""
    w = _covariance(data, data.d)
    if w is None:
        return None
    b = data.z.T @ data.d
    return float(b @ b / np.trace(w))


def critical_f(data: Instrumented, *, bias: float = 0.1, alpha: float = 0.05) -> float | None:
    """The effective F above which the bias of two-stage least squares is at most ``bias`` of its worst, at level
    ``alpha``: the simplified, conservative critical value (Montiel Olea and Pflueger 2013, section 2.3, Patnaik's
    approximation). None where treatment has no error.

    The test for one instrument at ``bias`` 0.1: 23.1.
    """
    from scipy.special import chndtrix

    w = _covariance(data, data.d)
    if w is None:
        return None
    x, trace = 1.0 / bias, float(np.trace(w))
    largest = float(np.linalg.eigvalsh(w)[-1])
    df = trace * trace * (1.0 + 2.0 * x) / (float((w * w).sum()) + 2.0 * x * trace * largest)
    return float(chndtrix(1.0 - alpha, df, df * x)) / df


def first_stage(data: Instrumented) -> dict[str, Any]:
    """Treatment on the instruments: ``estimate`` and ``std_error`` in treatment's unit per unit of the instrument,
    numbers with one instrument and lists with several, and the ``p_value`` of none of them moving it."""
    return _regression(data, data.d)


def reduced_form(data: Instrumented) -> dict[str, Any]:
    """Outcome on the instruments, in the same shape: the effect of the instruments themselves."""
    return _regression(data, data.y)


def overidentification(data: Instrumented, effect: float) -> dict[str, Any] | None:
    """Whether several instruments agree: Hansen's J after one efficient step from the two-stage residuals, robust or
    clustered. ``statistic``, ``df``, ``p_value``; None with one instrument, which has nothing to disagree with, or
    where the residuals leave no covariance to weigh by."""
    from scipy.special import chdtrc

    if data.k == 1:
        return None
    scores = data.summed(data.z * (data.y - effect * data.d)[:, None])
    moments = scores.T @ scores
    if not _regular(moments):
        return None
    a, b = data.z.T @ data.y, data.z.T @ data.d
    weighed = np.linalg.solve(moments, np.column_stack([a, b]))
    efficient = float(b @ weighed[:, 0] / (b @ weighed[:, 1]))
    left = a - efficient * b
    statistic = max(float(left @ np.linalg.solve(moments, left)), 0.0)
    return {"statistic": statistic, "df": data.k - 1, "p_value": float(chdtrc(data.k - 1, statistic))}


def _covariance(data: Instrumented, column: Vector) -> Matrix | None:
    """Robust covariance of a column's coefficients; None where it is no more than rounding."""
    left = data.left_by_instruments(column)
    found = data.covariance(left, left)
    return found if float(np.trace(found)) > 1e-24 * float(column @ column) else None


def _regression(data: Instrumented, column: Vector) -> dict[str, Any]:
    from scipy.special import fdtrc

    b, df, k = data.z.T @ column, data.df(data.k), data.k
    estimate = np.linalg.solve(data.r, b)
    covariance = _covariance(data, column)
    if covariance is None:
        p_value = 0.0 if b.any() else 1.0
        return {"estimate": _plain(estimate), "std_error": _plain(np.zeros(k)), "p_value": p_value}
    inverse = np.linalg.inv(data.r)
    error = np.sqrt(np.maximum(np.diag(inverse @ covariance @ inverse.T), 0.0))
    if k == 1:
        p_value = two_sided_p(float(estimate[0] / error[0]), df) if error[0] > 0.0 else 0.0
    else:
        p_value = float(fdtrc(k, df, b @ np.linalg.solve(covariance, b) / k)) if _regular(covariance) else math.nan
    return {
        "estimate": _plain(estimate),
        "std_error": _plain(error),
        "p_value": p_value if math.isfinite(p_value) else None,
    }


def _regular(matrix: Matrix) -> bool:
    sizes = np.linalg.eigvalsh(matrix)
    return bool(sizes[0] > 1e-13 * sizes[-1])


def _plain(values: NDArray[Any]) -> float | list[float]:
    out = [float(v) for v in values]
    return out[0] if len(out) == 1 else out
