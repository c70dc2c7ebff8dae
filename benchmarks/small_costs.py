"""What small things cost, each as a ratio to the same by other means in the same run.

    OMP_NUM_THREADS=1 python benchmarks/small_costs.py

- ``readout --help`` against ``python -c "import typer"``: CPU of whole processes, by turns.
- CR2 errors with Satterthwaite's degrees of freedom of 20,000 singletons and 46 columns against statsmodels' HC2.
- 9,999 schedules of a switchback with 672 cells, each with its studentized effect, against as many least-squares fits
  of the same regression by numpy (timed on 50 of them).
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from estimators.cells import Cells, prepare
from estimators.ols import fit
from estimators.randomization_blocks import randomization_blocks
from estimators.randomization_inference import Assignments

ROUNDS = 7


def cpu_of(code: str, *arguments: str) -> float:
    """CPU seconds of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cpu(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median CPU seconds of a call, the first one left out."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def show(what: str, ours: float, than: str, theirs: float) -> None:
    print(f"{what}: {ours:.3f} s, {ours / theirs:.2f} times {than} ({theirs:.3f} s)")


def help_text() -> None:
    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(cpu_of("import typer"))
        ours.append(cpu_of("from cli.main import main; main()", "--help"))
    show("readout --help", statistics.median(ours), "import typer", statistics.median(theirs))


def singletons() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(12)
    x = np.column_stack([np.ones(20_000), rng.normal(size=(20_000, 45))])
    y = rng.normal(size=20_000)
    contrast = np.eye(46)[1]
    ours = cpu(lambda: fit(x, y).contrast(contrast))
    show("CR2 of 20,000 singletons", ours, "statsmodels' HC2", cpu(lambda: sm.OLS(y, x).fit(cov_type="HC2").bse))


def schedules() -> None:
    rng = np.random.default_rng(5)
    block, cluster = np.tile(np.arange(168), 4), np.repeat(np.arange(4), 168)
    rows = rng.poisson(150, 672).astype(float)
    arm = rng.integers(0, 2, 672)
    outcome = rows * rng.normal(10, 1, 672)
    cells = Cells(outcome, rows, arm, cluster, block, block % 12 * 2, block // 12 % 7, tuple("abcd"))
    drawn = rng.integers(0, 2, (9_999, 672), dtype=np.int8)
    ours = cpu(lambda: randomization_blocks(cells, Assignments(drawn, False)), 3)
    model = prepare(cells, "rows", "cell")
    root = np.sqrt(model.weight)[:, None]
    y = root[:, 0] * cells.num / cells.den

    def naive() -> None:
        for arms in drawn[:50]:
            x = model.x.copy()
            x[:, 1] = arms
            np.linalg.lstsq(root * x, y, rcond=None)

    show("9,999 schedules", ours, "a fit for each (estimated from 50)", cpu(naive, 3) * 9_999 / 50)


if __name__ == "__main__":
    help_text()
    singletons()
    schedules()
