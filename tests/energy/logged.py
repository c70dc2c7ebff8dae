"""A log of batches, and its energy by arm and rule, step by step: an oracle that knows nothing of the product."""

from __future__ import annotations

import numpy as np
import polars as pl
import yaml

from readout.bundled import bundled

COLUMNS = {"batch": "batch", "prompt_tokens": "prompt", "output_tokens": "tokens", "start": "first", "end": "last"}
STATIC = {role: COLUMNS[role] for role in ("batch", "prompt_tokens", "output_tokens")}
ATTRIBUTION = {"attribution": {"columns": COLUMNS}}
MODEL = yaml.safe_load((bundled("configs") / "energy" / "h100_dense_8b.yaml").read_text(encoding="utf-8"))
MODEL = {k: float(v) if k not in ("name", "source", "gpu") else v for k, v in MODEL.items()}


def logged(world, units: int = 60) -> pl.DataFrame:
    """Requests in batches of five that join and leave at steps of their own; arms mix within a batch."""
    frame = world.log(units=units)
    rng = np.random.default_rng(7)
    n = len(frame)
    first = rng.integers(0, 30, n)
    return frame.with_columns(
        batch=pl.Series(rng.permutation(n) // 5),
        prompt=pl.Series(rng.integers(10, 900, n)),
        first=pl.Series(first),
        last=pl.Series(first) + pl.col("tokens"),
        success=pl.int_range(pl.len()) % 10 != 0,
        keep=pl.int_range(pl.len()) % 7 != 0,
    )


def shares(frame: pl.DataFrame, static: bool = False) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Wh of every row, step by step, and under each rule of thumb: an oracle that knows nothing of the product."""
    wh = np.zeros(len(frame))
    naive = {rule: np.zeros(len(frame)) for rule in ("per_token", "per_request", "provisioned")}
    batch, prompt, tokens = (frame[c].to_numpy() for c in ("batch", "prompt", "tokens"))
    first = np.zeros(len(frame), dtype=int) if static else frame["first"].to_numpy()
    last = tokens if static else frame["last"].to_numpy()
    host_step = MODEL["host_w"] * MODEL["gpus"] * MODEL["step_base_ms"] / 1000
    host_own = MODEL["host_w"] * MODEL["gpus"] * MODEL["step_per_request_ms"] / 1000
    for b in np.unique(batch):
        rows = np.flatnonzero(batch == b)
        joules = dict.fromkeys(rows.tolist(), 0.0)
        for step in range(first[rows].min(), last[rows].max()):
            active = [int(r) for r in rows if first[r] <= step < last[r]]
            for r in active:
                joules[r] += (MODEL["e0_j"] + host_step) / len(active) + host_own
        for r in rows.tolist():
            prefill = MODEL["prefill_j_per_token"] * prompt[r] + MODEL["prefill_j_per_token2"] * prompt[r] ** 2
            joules[r] += MODEL["e_tok_j"] * tokens[r] + prefill * (1 + MODEL["host_w"] / MODEL["prefill_w"])
            wh[r] = joules[r] / 3600 * MODEL["pue"]
        weights = {
            "per_token": prompt[rows] + tokens[rows],
            "per_request": np.ones(len(rows)),
            "provisioned": last[rows] - first[rows],
        }
        for rule, weight in weights.items():
            naive[rule][rows] = wh[rows].sum() * weight / weight.sum()
    return wh, naive
