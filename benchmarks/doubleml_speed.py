"""Doubly robust effects of an unrandomized action: `aipw` against DoubleML's IRM, as whole processes.

Data of 1,000,000 rows and 20 covariates are written once; every contestant is a process of its own that imports its
package, reads the arrays, fits propensity and outcome models on the same five folds and prints the effect and its
error. DoubleML draws the folds itself, from a seed (its check of folds that are given takes longer than its models);
readout is given the same. Wall time and peak memory are the operating system's, of the whole process; rounds in turn,
medians.

  fixed     one penalty: ridge with alpha 1 by arm, logistic regression with C 1; `penalty="light"` here. DoubleML with
            scikit-learn's default solver, and with the one that is fastest on such data (newton-cholesky)
  default   readout's default: the penalty cross-validated over 15 values, within every fold's training rows; DoubleML
            with RidgeCV and LogisticRegressionCV over the same values (`--cross-validated`: it takes minutes), and, as
            the harder bar, with the fixed penalties above

The columns have mean 0 and standard deviation 1, so that DoubleML needs no scaler. The script stops where an effect or
an error of the fixed penalties differs by more than 1e-4 of the error (1e-2 from lbfgs, which stops early).

    pip install policy-readout doubleml      # or the dependency group "benchmarks"
    OMP_NUM_THREADS=1 python benchmarks/doubleml_speed.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

FOLDS = 5
SEED = 3


def generate(folder: Path, rows: int, columns: int) -> None:
    """Covariates, treatment, outcome and folds."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, columns))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    e = 1.0 / (1.0 + np.exp(-x[:, :5] @ np.array([0.5, -0.4, 0.3, 0.2, 0.1])))
    d = (rng.random(rows) < e).astype(np.float64)
    y = x @ np.linspace(0.0, 1.0, columns) + d * (1.0 + 0.5 * x[:, 0]) + rng.normal(size=rows)
    from sklearn.linear_model import LogisticRegression, Ridge

    fold = np.zeros(rows, dtype=np.int64)
    for k, (_, test) in enumerate(irm(x, y, d, Ridge(), LogisticRegression()).smpls[0]):
        fold[test] = k
    for name, array in {"x": x, "d": d, "y": y, "fold": fold}.items():
        np.save(folder / f"{name}.npy", array)


def irm(x: Any, y: Any, d: Any, outcome: Any, propensity: Any) -> Any:
    """DoubleML's model with its folds, before any fit."""
    from doubleml import DoubleMLData, DoubleMLIRM

    np.random.seed(SEED)
    return DoubleMLIRM(DoubleMLData.from_arrays(x, y, d), outcome, propensity, n_folds=FOLDS, normalize_ipw=True)


def readout(folder: Path, penalty: str) -> tuple[float, float]:
    """Effect and standard error by readout."""
    from estimators import aipw, nuisances

    x, d, y, fold = (np.load(folder / f"{name}.npy") for name in ("x", "d", "y", "fold"))
    found = aipw(y, nuisances(d, x, folds=fold, penalty=penalty))  # type: ignore[arg-type]
    return found.estimate, found.std_error


def doubleml(folder: Path, learners: str) -> tuple[float, float]:
    """Effect and standard error by DoubleML."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV

    x, d, y = (np.load(folder / f"{name}.npy") for name in ("x", "d", "y"))
    if learners == "cross_validated":
        from estimators.penalised import PATH

        n = len(d) * (FOLDS - 1) / FOLDS
        outcome = RidgeCV(n / 2 * PATH)
        propensity = LogisticRegressionCV(Cs=1.0 / (n * PATH), cv=FOLDS - 1, scoring="neg_log_loss")
    else:
        outcome, propensity = Ridge(1.0), LogisticRegression(C=1.0, solver=learners)
    model = irm(x, y, d, outcome, propensity).fit()
    return float(model.coef[0]), float(model.se[0])


CONTESTANTS: dict[str, Any] = {
    "readout, fixed": lambda folder: readout(folder, "light"),
    "readout, default": lambda folder: readout(folder, "cross_validated"),
    "DoubleML, fixed": lambda folder: doubleml(folder, "lbfgs"),
    "DoubleML, fixed, newton-cholesky": lambda folder: doubleml(folder, "newton-cholesky"),
    "DoubleML, cross-validated": lambda folder: doubleml(folder, "cross_validated"),
}


def timed(name: str, folder: Path) -> dict[str, float]:
    """Runs a contestant in a process of its own: seconds, MiB, effect and error."""
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", __file__, "--child", name, "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answer = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} failed")
    estimate, error = json.loads(answer)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "mib": usage.ru_maxrss / 1024, "estimate": estimate, "error": error}


def main() -> None:
    """Generates, runs the rounds and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cross-validated", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "data":
        generate(args.folder, args.rows, args.columns)
        return
    if args.child:
        print(json.dumps(CONTESTANTS[args.child](args.folder)))
        return
    names = [name for name in CONTESTANTS if args.cross_validated or not name.endswith("cross-validated")]
    with tempfile.TemporaryDirectory() as place:
        # In a process of its own too: a child is charged what its parent held when it was started.
        sizes = ["--rows", str(args.rows), "--columns", str(args.columns)]
        subprocess.run([sys.executable, __file__, "--child", "data", "--folder", place, *sizes], check=True)
        rounds = [{name: timed(name, Path(place)) for name in names} for _ in range(args.rounds)]
    medians = {name: {k: statistics.median(r[name][k] for r in rounds) for k in rounds[0][name]} for name in names}
    print(f"{args.rows:,} rows, {args.columns} covariates, {FOLDS} folds, medians of {args.rounds} rounds")
    print(f"{'':36}{'seconds':>9}{'MiB':>8}{'effect':>12}{'error':>12}")
    for name, row in medians.items():
        print(f"{name:36}{row['seconds']:9.2f}{row['mib']:8.0f}{row['estimate']:12.7f}{row['error']:12.8f}")
    for mine in names[:2]:
        for theirs in names[2:]:
            time_ratio, memory_ratio = (medians[mine][k] / medians[theirs][k] for k in ("seconds", "mib"))
            print(f"{mine} / {theirs}: time {time_ratio:.2f}, memory {memory_ratio:.2f}")
    first = medians["readout, fixed"]
    for theirs, allowed in ((names[2], 1e-2), (names[3], 1e-4)):
        gaps = [abs(first[k] - medians[theirs][k]) / first["error"] for k in ("estimate", "error")]
        print(f"{theirs}: effect and error differ by {gaps[0]:.1e} and {gaps[1]:.1e} of the error")
        if max(gaps) > allowed:
            raise SystemExit("the same learners on the same folds gave different numbers")


if __name__ == "__main__":
    main()
