"""Credit: rollouts and their scores as a batch with everything that a policy objective reads.

Whatever couples rows (whitening, comparisons within a group, running norms) happens here, over the whole rollout batch, before
it is split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from accord.data.batch import Batch
from accord.data.tokenizer import pad_id
from accord.engine import Engine
from accord.objectives.advantage import (
    explained_variance,
    gae,
    group_relative,
    leave_one_out,
    token_rewards,
    whiten,
)
from accord.objectives.kl import estimate
from accord.outputs import Output, Roles
from accord.pitfalls.measures import distinct, on_length
from accord.recipe import GrpoParams, PolicyParams, PpoParams, ReinforceParams, RolloutParams
from accord.sampler import Rollout, as_batch
from accord.score import Score
from accord.stages.actors import Actors


@dataclass
class Moments:
    """Mean and variance of all values so far (Chan et al. 1979)."""

    count: float = 0
    mean: float = 0.0
    squares: float = 0.0  # the sum of squared distances from the mean

    def add(self, values: Sequence[float]) -> Moments:
        """With more values."""
        if not values:
            return self
        count, mean = self.count + len(values), float(np.mean(values))
        apart = mean - self.mean
        within = float(np.square(np.array(values) - mean).sum())
        squares = self.squares + within + apart**2 * self.count * len(values) / count
        return Moments(count, self.mean + apart * len(values) / count, squares)

    @property
    def std(self) -> float:
        """The population's standard deviation; 1 where there is none."""
        return math.sqrt(self.squares / self.count) if self.squares > 0 else 1.0


def shape(score: Tensor, finished: Tensor, length: Tensor, params: PolicyParams, moments: Moments) -> Tensor:
    """What an answer earns, [B]: its score, normalised and clipped, less what not ending and its length cost."""
    shaped = (score - moments.mean) / moments.std if params.reward_norm else score
    if params.reward_clip is not None:
        shaped = shaped.clamp(-params.reward_clip, params.reward_clip)
    kept = torch.zeros_like(shaped) if params.missing_eos_how == "replace" else shaped
    cut = torch.where(score.isnan(), score, kept - params.missing_eos)
    return torch.where(finished, shaped, cut) - params.length_penalty * length


def assign(batch: Batch, score: Tensor, group: Tensor, params: PolicyParams, *, beta: float) -> dict[str, Tensor]:
    """The advantage of each token, [B, T], from what answers earn, [B]; with a critic what it is to learn (`return`) too.

    Answers of the same `group`, [B], are to the same prompt. The batch brings what is read: `ref_logp` and `old_logp`, or else
    `sampled_logp`, where the KL is in the reward, for a critic `old_value` and `valued` too.
    """
    price = beta if params.kl_in == "reward" else 0.0
    found: dict[str, Tensor] = {}
    if isinstance(params, PpoParams):
        valued, value = batch["valued"].bool(), batch["old_value"]
        reward = token_rewards(
            score.nan_to_num(0.0), batch["old_logp"], batch["ref_logp"], batch.train,
            kl=price, estimator=params.kl_estimator, valued=valued,
        )  # fmt: skip
        if params.whiten_rewards:
            reward = whiten(reward, valued, shift=False, bessel=params.bessel)
        advantage = gae(reward, value, valued, gamma=params.gamma, lam=params.lam)
        found["return"] = (advantage + value) * valued
    else:
        if price:
            said = batch["old_logp" if "old_logp" in batch.extra else "sampled_logp"]
            log_ratio = (said - batch["ref_logp"]) * batch.train
            score = score - price * estimate(log_ratio, params.kl_estimator).sum(1)
        advantage = _compared(score, group, params)[:, None]
    advantage = advantage * batch.train
    if params.whiten:
        advantage = whiten(advantage, batch.train, bessel=params.bessel)
    return {**found, "advantage": advantage}


def _compared(reward: Tensor, group: Tensor, params: PolicyParams) -> Tensor:
    """The advantage of each answer, [B], over others: those to the same prompt, or all of the batch."""
    if isinstance(params, GrpoParams):
        return group_relative(reward, group, std=params.std)
    return leave_one_out(reward, torch.zeros_like(group) if isinstance(params, ReinforceParams) else group)


def credit(
    rollouts: Sequence[Rollout], scores: Sequence[Score], actors: Actors, engine: Engine, params: PolicyParams, *,
    rollout: RolloutParams, beta: float, moments: Moments, micro_tokens: int,
    once: bool = False,
) -> tuple[Batch, dict[str, float]]:  # fmt: skip
    """Rollouts as a batch with everything the objective needs, and the numbers to log.

    With `once` the trainer's log-probs of before the update are left to the update, which finds them and the numbers that they
    give itself.
    """
    after = isinstance(params, PpoParams) and params.score_at == "after"
    batch = as_batch(
        rollouts, pad_id(actors.tokenizer), rollout.temperature if params.logp_temperature else 1.0,
        window=rollout.max_new_tokens if after else 0,
    )  # fmt: skip
    value = torch.tensor([score.value for score in scores])  # [B]
    scored = ~value.isnan()
    batch.train &= scored[:, None]  # what could not be scored teaches nothing
    batch.extra["valued"] *= scored[:, None]

    reference = Roles(policy=actors.reference)
    batch.extra["ref_logp"] = engine.outputs(reference, batch, ["logp"], micro_tokens=micro_tokens).logp
    if not once:
        # The trainer's own log-probs, not the sampler's: the ratio must be exactly 1 before the first update.
        wanted: list[Output] = ["logp"] if actors.critic is None else ["logp", "value"]
        old = engine.outputs(actors.learner.roles, batch, wanted, micro_tokens=micro_tokens)
        batch.extra["old_logp"] = old.logp
        if actors.critic is not None:
            batch.extra["old_value"] = old.value
    finished = torch.tensor([r.finish == "stop" for r in rollouts])
    length = torch.tensor([float(len(r.tokens)) for r in rollouts])
    group = torch.tensor([r.group for r in rollouts])
    batch.extra |= assign(batch, shape(value, finished, length, params, moments), group, params, beta=beta)

    numbers = {
        "reward/mean": _mean(value),
        **{f"reward/{part}": _mean(torch.tensor([s.parts[part] for s in scores])) for part in scores[0].parts},
        "reward/unscored": float((~scored).sum()),
        "kl/beta": beta,
        "rollout/length": float(length.mean()),
        "rollout/finished": float(finished.float().mean()),
    }
    numbers |= variety(rollouts, scores)
    if actors.critic is not None:
        learnt = batch["valued"].bool()
        numbers["value/explained_variance"] = explained_variance(batch["old_value"][learnt], batch["return"][learnt])
        if learnt.any():
            numbers["value/return_std"] = float(batch["return"][learnt].std(correction=0))
    if not once:
        kl = ((batch["old_logp"] - batch["ref_logp"]) * batch.train).sum(1)  # [B], k1 summed over tokens
        numbers["kl/mean"] = float(kl[scored].mean())
        numbers["sampler/mismatch"] = float((batch["old_logp"] - batch["sampled_logp"])[batch.train].abs().mean())
    return batch, {name: number for name, number in numbers.items() if math.isfinite(number)}


def variety(rollouts: Sequence[Rollout], scores: Sequence[Score]) -> dict[str, float]:
    """How varied answers are, and what their length has to do with their reward: what collapse and length bias show in."""
    found = {"rollout/distinct": distinct([rollout.tokens for rollout in rollouts])}
    lengths, groups = [float(len(rollout.tokens)) for rollout in rollouts], [rollout.group for rollout in rollouts]
    if fitted := on_length([score.value for score in scores], lengths, groups):
        found |= {"rollout/length_slope": fitted[0], "rollout/length_correlation": fitted[1]}
    return {name: value for name, value in found.items() if value is not None}


def _mean(values: Tensor) -> float:
    return float(values[~values.isnan()].mean())
