"""The spec that is written beside a simulated log."""

from __future__ import annotations

from datetime import timedelta

from readout.simulate.experiment import RCT, ROLLOUT, SWITCHBACK
from readout.simulate.truth import ON_TIME_MS
from readout.simulate.worlds import World
from readout.simulate.write import START

_DESIGN = {
    SWITCHBACK: """\
design:
  kind: switchback
  control: current
  treatment: premium
  split: {{current: 0.5, premium: 0.5}}
  shared_state: true
  user_visible: true
  policy_inputs: [tier, prompt_tokens, kv_tokens_in_flight]
  block: {block}h
  washout: {washout}m{why}
  assignment: bernoulli
""",
    RCT: """\
design:
  kind: user_rct
  control: current
  treatment: premium
  split: {{current: 0.5, premium: 0.5}}
  shared_state: true       # both arms queue at the same fleets
  user_visible: true
  policy_inputs: [tier, prompt_tokens, kv_tokens_in_flight]
""",
    ROLLOUT: """\
design:
  kind: did
  control: current
  treatment: premium
  shared_state: true
  user_visible: true
  policy_inputs: [tier, prompt_tokens, kv_tokens_in_flight]
  rollout: premium_from
  period: 1d
  controls: never
""",
}

_ASSIGNED = {
    SWITCHBACK: "Regions switch between the policies in blocks of two hours, each by a fair coin.",
    RCT: "Every workspace keeps one policy, by a fair coin; both share the fleets.",
    ROLLOUT: "Half of the regions switch to the new policy, each on its own day.",
}

_QUESTION = "Should latency-sensitive short requests go to the premium fleet while it has room"
_STORE_QUESTION = f"{_QUESTION}, and the prefix store be kept for shared prefixes"
# Compared where rows are; a panel compares units' means.
_P99 = "  ttft_p99: {column: ttft_ms, quantile: 0.99, role: guardrail, better: lower, margin: 25%}\n"
# What a reader of the spec should know of a washout that a store, not queues, calls for.
_STORE_WASHOUT = "        # the store is written over in this time; --set design.washout=0m shows what carries over"

_SPEC = """\
# Simulated: the true effects stand in {truth}.
version: 1
name: {name}
question: {question}
counterfactual: The current router on the same requests, regions and hours.
decision:
  failure_mode: Routed traffic fills the premium fleet and slows the reserved customers there.
  mitigation: {assigned}
  monitor: p99 TTFT and fallbacks by region.

logs:
  path: {log}
  start: {start}
  end: {end}
  columns:
    time: decision_ts
    request: request_id
    unit: {unit}
    cluster: region
    workflow: session_id
    arm: arm
    assigned_at: assigned_at
    eligible: eligible
    intended: intended_action
    executed: executed_action
    fallback: fallback_reason
    timeout: timed_out
    retries: retry_count
    propensity: propensity
    state: [queue_depth, kv_tokens_in_flight, cache_warm]
    features: [tier, prompt_tokens, model]
    after: [queue_depth_after, completed]

{design}
metrics:
  ttft: {{column: ttft_ms, role: primary, better: lower, minimum_effect: 2%}}
  error_rate: {{column: error, role: guardrail, better: lower, margin: 0.005}}
{p99}  untreated_ttft: {{column: ttft_ms, on: untreated, role: guardrail, better: lower, margin: 10%}}
  cost_per_success: {{numerator: cost_usd, denominator: success, role: guardrail, better: lower, margin: 10%}}
  on_time: {{expr: "success and ttft_ms <= {on_time:g}", role: secondary, better: higher}}
  success: {{column: success, role: secondary, better: higher}}
  latency: {{column: latency_ms, role: secondary, better: lower}}

economics:
  value: {{metric: on_time, usd: 0.004}}     # what an answer on time is worth
  cost: {{column: gpu_seconds, usd: 0.0009}}
  bar: {{net_usd_per_1k_requests: 0}}

rollback:
  - {{metric: error_rate, above: 0.03}}
  - {{expr: "fallback_reason is not null", above: 0.25, where: "kv_tokens_in_flight > {busy}"}}

attribution:
  columns:
    batch: batch_id
    prompt_tokens: prompt_tokens
    output_tokens: output_tokens
    start: start_step
    end: end_step
    measured_wh: batch_wh
  energy_model: {energy_model}
  carbon: {{g_per_kwh: 380}}
"""


def spec_text(world: World, *, log: str, truth: str, days: float, busy: int, energy_model: str) -> str:
    """The YAML of a spec over the simulated log that stands beside it.

    Args:
        log, truth: File names.
        busy: KV tokens in flight above which a region counts as busy.
    """
    why = "" if world.store is None else _STORE_WASHOUT
    design = _DESIGN[world.mechanism].format(block=f"{world.block_h:g}", washout=world.washout_m, why=why)
    end = START + timedelta(days=days)
    return _SPEC.format(
        name=world.name.replace("_", "-"),
        question=(_QUESTION if world.store is None else _STORE_QUESTION) + "?",
        truth=truth,
        log=log,
        start=START.strftime("%Y-%m-%dT%H:%MZ"),
        end=end.strftime("%Y-%m-%dT%H:%MZ"),
        assigned=_ASSIGNED[world.mechanism],
        unit="region" if world.mechanism == ROLLOUT else "workspace_id",
        design=design,
        p99="" if world.mechanism == ROLLOUT else _P99,
        on_time=ON_TIME_MS,
        busy=busy,
        energy_model=energy_model,
    )
