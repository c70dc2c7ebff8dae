"""How often the intervals of robust means cover the difference that they are of, under heavy tails, ties and zeros.

Run from the root of the repository:

    OMP_NUM_THREADS=1 python -m benchmarks.robust_coverage --experiments 2000

Two arms of 2,000 units, once alike and once with treatment's values 1.2 times as large. Each cell is the share of 95 %
intervals that hold the truth, in per cent, and the median standard error. The truth of winsorized and trimmed means is
theirs, from four million draws; of the others it is the difference of the means.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from estimators import Estimate, Moments, catoni, difference_in_means, median_of_means, trimmed, winsorized

Rng = np.random.Generator
Values = NDArray[np.float64]
UNITS, DRAWS = 2000, 4_000_000

WORLDS: dict[str, tuple[Callable[[Rng, int], Values], float | None]] = {
    "log-normal, 1.5": (lambda r, n: np.exp(1.5 * r.normal(size=n)), math.exp(1.125)),
    "Pareto, 2.5": (lambda r, n: 1 + r.pareto(2.5, n), 2.5 / 1.5),
    "ties": (lambda r, n: np.minimum(r.geometric(0.2, n), 30).astype(float), None),
    "50 % zeros": (lambda r, n: np.where(r.random(n) < 0.5, 0, np.exp(r.normal(size=n))), 0.5 * math.exp(0.5)),
    "Pareto, 1.5": (lambda r, n: 1 + r.pareto(1.5, n), 3.0),
}
METHODS: dict[str, Callable[[Values, Values], Estimate]] = {
    "Welch": lambda a, b: difference_in_means(Moments.from_arrays(a), Moments.from_arrays(b)),
    "winsorize 0.999": lambda a, b: winsorized((a, None), (b, None)),
    "winsorize 0.99": lambda a, b: winsorized((a, None), (b, None), quantile=0.99),
    "trim": trimmed,
    "median_of_means": lambda a, b: median_of_means((a, None), (b, None), seed=int(a[0] * 1e6) % 10**6),
    "catoni": catoni,
}


def truth(method: str, draw: Callable[[Rng, int], Values], mean: float | None, lift: float) -> float:
    """What the method's interval is to hold."""
    if lift == 1.0:
        return 0.0
    rng = np.random.default_rng(99)
    if not method.startswith(("winsorize", "trim")) and mean is not None:
        return (lift - 1.0) * mean
    a, b = draw(rng, DRAWS), lift * draw(rng, DRAWS)
    if method.startswith("winsorize"):
        cap = np.quantile(np.concatenate([a, b]), float(method.split()[1]), method="inverted_cdf")
        a, b = np.minimum(a, cap), np.minimum(b, cap)
    elif method == "trim":
        off = int(0.05 * DRAWS)
        a, b = np.sort(a)[off:-off], np.sort(b)[off:-off]
    return float(b.mean() - a.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=2000)
    given = parser.parse_args()
    print("| world | lift | " + " | ".join(METHODS) + " |\n|---|---:" + "|---:" * len(METHODS) + "|")
    for name, (draw, mean) in WORLDS.items():
        for lift in (1.0, 1.2):
            cells = []
            for method, estimate in METHODS.items():
                rng, wanted = np.random.default_rng(5), truth(method, draw, mean, lift)
                found = [estimate(draw(rng, UNITS), lift * draw(rng, UNITS)) for _ in range(given.experiments)]
                held = np.mean([e.ci_low <= wanted <= e.ci_high for e in found])
                cells.append(f"{100 * held:.1f} ({np.median([e.std_error for e in found]):.3g})")
            print(f"| {name} | {lift} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
