"""The reward that both sides are given as a function: the share of one letter in the answer."""

from accord.sampler import Rollout


def share(text: str) -> float:
    """The share of the letter e."""
    return text.count("e") / max(1, len(text))


def of_rollout(rollout: Rollout) -> float:
    """The same, as accord asks for it."""
    return share(rollout.text)
