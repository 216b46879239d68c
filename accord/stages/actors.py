"""Who takes part in policy optimisation: policy, critic, reference, sampler, rewards."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord import lora
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.engine import Learner
from accord.functions import is_reference
from accord.model import learn_last, load_config, load_policy, policy_beside, scorer_beside
from accord.outputs import Roles
from accord.recipe import Policy, PpoParams, Rewards
from accord.sampler.local import LocalSampler
from accord.score import Scorer, combine
from accord.score.model import as_critic, open_reward
from accord.stages.fit import Context


@dataclass
class Actors:
    """Everything that takes part in policy optimisation."""

    learner: Learner  # policy and, where there is one, critic
    policy: PreTrainedModel
    critic: PreTrainedModel | None
    reference: PreTrainedModel
    sampler: LocalSampler
    reward: Scorer  # what is optimised
    judge: Scorer  # what chooses the checkpoint
    tokenizer: PreTrainedTokenizerBase


def load_actors(context: Context, stage: Policy, path: str, tokenizer: PreTrainedTokenizerBase) -> Actors:
    """Policy and critic in one learner; the reference; the sampler on the policy's own weights."""
    engine, optim, params = context.engine, stage.optim, stage.params
    policy = load_policy(path, tokenizer, f"{context.where}.model", train=stage.lora, seed=context.seed)
    start = context.path(stage.reference or stage.model)
    reference = policy_beside(policy, start, tokenizer, f"{context.where}.reference")
    critic = load_critic(context, stage, params, tokenizer, policy) if isinstance(params, PpoParams) else None
    reward = open_rewards(context, stage.rewards, tokenizer, optim.micro_tokens, beside=policy)
    chosen_by = stage.eval_rewards
    judge = open_rewards(context, chosen_by, tokenizer, optim.micro_tokens, beside=policy) if chosen_by else reward
    peaks = {"policy": optim.lr}
    if isinstance(params, PpoParams):
        peaks["scorer"] = params.critic_lr or optim.lr
    return Actors(
        learner=engine.learner(Roles(policy=policy, scorer=critic), optim, peaks=peaks),
        policy=policy,
        critic=critic,
        reference=engine.place(reference, inner=True),
        sampler=LocalSampler(policy, tokenizer, stop_ids(tokenizer, path)),
        reward=reward,
        judge=judge,
        tokenizer=tokenizer,
    )


def load_critic(
    context: Context, stage: Policy, params: PpoParams, tokenizer: PreTrainedTokenizerBase, policy: PreTrainedModel
) -> PreTrainedModel:
    """The critic: from the first reward model that reads the policy's tokens, else from the policy with a head at 0.

    A reward model's head is divided by its `reward_std`, so that values begin on the scale of the rewards.
    """
    where = f"{context.where}.params.critic"
    if params.critic == "trunk":
        return lora.scorer_on(policy, load_config(context.path(stage.model), where), tokenizer)
    path = context.path(critic_start(stage, params))
    if params.critic == "reward" and load_tokenizer(path, where).get_vocab() != tokenizer.get_vocab():
        path = context.path(stage.model)
    critic = scorer_beside(policy, path, tokenizer, where, train=stage.lora)
    as_critic(critic)
    if params.critic_layers:
        learn_last(critic, params.critic_layers)
    return critic


def critic_start(stage: Policy, params: PpoParams) -> str:
    """The model that a critic of its own starts from, as the recipe names it."""
    if params.critic == "reward":
        return next((name for name in stage.rewards if not is_reference(name)), stage.model)
    return stage.model if params.critic == "policy" else params.critic


def open_rewards(
    context: Context, rewards: Rewards, tokenizer: PreTrainedTokenizerBase | None, micro_tokens: int, *,
    beside: PreTrainedModel | None = None,
) -> Scorer:  # fmt: skip
    """The rewards of a recipe as one scorer; reward models that are adapters share the trunk of `beside` where they can."""
    where = f"{context.where}.rewards"
    return combine(
        rewards,
        lambda name, term: open_reward(
            context.members(name), term, context.engine, micro_tokens=micro_tokens, where=f"{where}.{name}",
            tokenizer=tokenizer, beside=beside,
        ),
        where,
    )  # fmt: skip
