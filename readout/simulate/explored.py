"""A live router that explores, as files: what policies are worth on its requests, and the spec of a new one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from readout.simulate.arrivals import Floats, Workload
from readout.simulate.routed import PREMIUM, STANDARD, Routed, RoutedParams
from readout.simulate.worlds import World
from readout.simulate.write import START, parameters

_NAMES = {"ttft": "ttft_ms", "error_rate": "error", "latency": "latency_ms", "cost_per_request": "cost_usd"}
# The target: all tiers but the lowest go to the premium pool, and the lowest too once the queue is long.
LONG = 6


def truth(workload: Workload, found: Routed, values: Mapping[str, Floats], params: RoutedParams) -> dict[str, object]:
    """What each policy is worth on these requests, each in the state that it met: the logging policy in the mean over
    its draws, the target of the spec, and those that always use one pool."""
    target = ((workload.tier > 0) | (found.queue_depth >= LONG)).astype(float)
    everywhere = np.ones(found.action.size)
    chances = {
        "logging": found.propensity,
        "target": target,
        "always standard": STANDARD * everywhere,
        "always premium": PREMIUM * everywhere,
    }
    worth = {name: _worth(values, p) for name, p in chances.items()}
    gain = {key: _less(worth["target"][key], worth["logging"][key]) for key in worth["target"]}
    return {"values": worth, "effect": gain, "parameters": parameters(params)}


def _worth(values: Mapping[str, Floats], premium: Floats) -> dict[str, float | None]:
    """Mean outcomes where the premium pool is used with this probability."""

    def mean(column: str) -> float:
        both = values[column]
        return float((both[:, STANDARD] + premium * (both[:, PREMIUM] - both[:, STANDARD])).mean())

    found: dict[str, float | None] = {name: mean(column) for name, column in _NAMES.items()}
    served = mean("success")
    found["cost_per_success"] = mean("cost_usd") / served if served else None
    return found


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


_SPEC = """\
# Simulated: what each policy is worth on these requests stands in {truth}, under values.
version: 1
name: {name}
question: Should the premium pool also take the lowest tier once the queue is long?
counterfactual: The live router on the same requests, each in the state that it met.
decision:
  frame: rule
  failure_mode: The premium pool fills up once more is sent there, which these logs never saw.
  mitigation: A small share first, drawn at random.
  monitor: Queue depth and TTFT by pool.

logs:
  path: {log}
  start: {start}
  end: {end}
  columns:
    time: decision_ts
    request: request_id
    unit: workspace_id
    cluster: region
    workflow: session_id
    intended: intended_action
    executed: executed_action
    propensity: propensity       # probability of the logged action, as the router drew it
    timeout: timed_out
    state: [queue_depth, active_requests, cache_warm]
    features: [tier, prompt_tokens, model]
    after: [queue_depth_after, completed]

design:
  kind: ope
  policy_inputs: [tier, queue_depth]
  target_policy:
    rules:
      - {{when: "tier <> 'free' or queue_depth >= {long}", action: premium}}
    else: standard
  actions: [standard, premium]

metrics:
  ttft: {{column: ttft_ms, role: primary, better: lower, minimum_effect: 2%}}
  error_rate: {{column: error, role: guardrail, better: lower, margin: 0.01}}
  latency: {{column: latency_ms, role: secondary, better: lower}}
  cost_per_success: {{numerator: cost_usd, denominator: success, role: secondary, better: lower}}
"""


def spec_of(world: World, *, log: str, truth: str, days: float) -> str:
    """The YAML of a spec over the log that stands beside it."""
    return _SPEC.format(
        name=world.name.replace("_", "-"),
        truth=truth,
        log=log,
        start=START.strftime("%Y-%m-%dT%H:%MZ"),
        end=(START + timedelta(days=days)).strftime("%Y-%m-%dT%H:%MZ"),
        long=LONG,
    )
