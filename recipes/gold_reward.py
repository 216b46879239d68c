"""The embedded world's judge as a reward: what PPO can reach where nothing stands between it and the truth."""

from accord.demo.gold import gold as judge
from accord.sampler import Rollout
from accord.score import Score


def gold(rollout: Rollout) -> Score:
    """Gold of an answer."""
    return judge(rollout)
