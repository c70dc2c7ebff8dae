"""Makes the constants and the data of ``tests/estimators/test_open_bandit.py``.

With Python 3.9, from the root of the repository:

    pip install --no-deps obp==0.5.7
    pip install "numpy<2" scipy scikit-learn pandas pyyaml tqdm matplotlib seaborn
    python tests/estimators/oracles/open_bandit.py

``torch``, ``pyieoe`` and ``pingouin`` (1.8 GB) are imported by the package and used by none of these estimators: empty
stand-ins take their places. Run with numpy 1.26.4.

Two policies are evaluated on the random logs of the Open Bandit Dataset. ``prior`` is the package's Bernoulli Thompson
sampling with the prior that production started with, its probabilities by 100,000 draws: what the package's examples
take for the policy that ran. That policy learnt as it ran (propensities of one item range from 0.002 to 0.77 within the
week), so ``ran`` is what it did over the week: how often it showed an item in a position. Both look at nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))


torch = MagicMock()
torch.utils.data.Dataset = torch.nn.Module = type("Empty", (), {})
for part in ("", ".nn", ".nn.functional", ".optim", ".utils", ".utils.data"):
    sys.modules["torch" + part] = torch
for name in ("pyieoe", "pyieoe.evaluator", "pingouin"):
    sys.modules[name] = MagicMock()

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from obp.dataset import OpenBanditDataset  # noqa: E402
from obp.ope import (  # noqa: E402
    DirectMethod,
    DoublyRobust,
    InverseProbabilityWeighting,
    SelfNormalizedInverseProbabilityWeighting,
    SwitchDoublyRobust,
)
from obp.policy import BernoulliTS  # noqa: E402

from tests.estimators.bandits import bandit, crude_predictions, softmax_policy  # noqa: E402

ESTIMATORS = {
    "ips": InverseProbabilityWeighting(),
    "ips, clip 2": InverseProbabilityWeighting(lambda_=2.0),
    "snips": SelfNormalizedInverseProbabilityWeighting(),
    "direct_method": DirectMethod(),
    "doubly_robust": DoublyRobust(),
    "doubly_robust, clip 2": DoublyRobust(lambda_=2.0),
    "doubly_robust, switch 2": SwitchDoublyRobust(lambda_=2.0),
}


def values(logs, policy, q):
    """The target's value by every estimator."""
    given = {
        "reward": logs.reward,
        "action": logs.action,
        "pscore": logs.propensity,
        "action_dist": policy[:, :, None],
        "estimated_rewards_by_reg_model": q[:, :, None],
    }
    return {name: float(e.estimate_policy_value(**given)) for name, e in ESTIMATORS.items()}


def simulated():
    """Policies that choose, and policies that draw."""
    out = {}
    for actions in (2, 10, 80):
        logs = bandit(20 + actions, units=400, rows=1, actions=actions)
        q = crude_predictions(logs, actions)
        out[f"{actions}, one action"] = values(logs, np.eye(actions)[logs.target], q)
        out[f"{actions}, probabilities"] = values(logs, softmax_policy(logs, actions), q)
    return out


def real():
    """Counts by campaign, item and position of both logs, and what the package's estimators make of them."""
    frames, shown = [], {}
    for campaign in ("all", "men", "women"):
        random, ran = (
            OpenBanditDataset(behavior_policy=name, campaign=campaign).obtain_batch_bandit_feedback()
            for name in ("random", "bts")
        )
        n_actions = int(random["n_actions"])
        assert np.allclose(random["pscore"], 1.0 / n_actions)
        prior = BernoulliTS(
            n_actions=n_actions, len_list=3, is_zozotown_prior=True, campaign=campaign, random_state=12345
        ).compute_batch_action_dist(n_sim=100_000, n_rounds=random["n_rounds"])
        shares = np.zeros((n_actions, 3))
        np.add.at(shares, (ran["action"], ran["position"]), 1.0)
        counts = shares.astype(int)
        shares = np.broadcast_to(shares / shares.sum(axis=0), prior.shape)
        given = {name: random[name] for name in ("reward", "action", "position", "pscore")}
        shown[campaign] = {
            f"{name}, {which}": float(ESTIMATORS[name].estimate_policy_value(action_dist=policy, **given))
            for which, policy in (("prior", prior), ("ran", shares))
            for name in ("ips", "snips")
        }
        shown[campaign].update(on_policy_rows=int(ran["n_rounds"]), on_policy_clicks=int(ran["reward"].sum()))
        at = [(item, position) for item in range(n_actions) for position in range(3)]
        each = [(random["action"] == item) & (random["position"] == position) for item, position in at]
        frames.append(
            pd.DataFrame(
                {
                    "campaign": campaign,
                    "item": [item for item, _ in at],
                    "position": [position for _, position in at],
                    "shown": [int(rows.sum()) for rows in each],
                    "clicks": [int(random["reward"][rows].sum()) for rows in each],
                    "prior": [prior[0][cell] for cell in at],
                    "ran": [counts[cell] for cell in at],
                }
            )
        )
    pd.concat(frames).to_csv(HERE.parent / "data" / "open_bandit.csv", index=False)
    return shown


if __name__ == "__main__":
    out = {"simulated": simulated(), "real": real()}
    (HERE / "open_bandit.json").write_text(json.dumps(out, indent=1) + "\n")
