"""Reward models as scorers: one, or an ensemble combined into one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.data.batch import Batch, Row
from accord.data.prepare import answered
from accord.data.tokenizer import load_tokenizer, pad_id
from accord.engine import Engine
from accord.errors import ModelError
from accord.model import has_head, load_config, load_scorer, score_head, scorer_beside
from accord.outputs import Output, Outputs, Roles, pooling
from accord.recipe import RewardTerm
from accord.sampler import Rollout, beside
from accord.score import Score
from accord.score.training_range import TrainingRange, load_range


@dataclass
class RewardModel:
    """The members of an ensemble (or a single model) with their normalisation."""

    members: list[PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    engine: Engine
    term: RewardTerm
    micro_tokens: int
    shares_tokens: bool = False  # whether rollouts come in this model's own tokens
    ranges: Sequence[TrainingRange] = ()  # of the members, where they keep them

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """The combined, normalised reward of each rollout.

        In `parts` are the `spread` of several members and, of members that know their training range, the share of them
        that a rollout is `outside` of.
        """
        rows = rows_of(rollouts, self.tokenizer, as_sampled=self.shares_tokens)
        batch = beside(rollouts, rows, pad_id(self.tokenizer))
        outputs = [self.outputs(member, batch) for member in self.members]
        values = torch.stack([self.rewards(*both) for both in zip(self.members, outputs, strict=True)])  # [M, B]
        combined = combine_members(values, self.term)
        parts = {"spread": values.std(0, correction=0)} if len(values) > 1 else {}
        if self.ranges:
            each = [known.outside(out.feature) for known, out in zip(self.ranges, outputs, strict=True)]
            parts["outside"] = torch.stack(each).mean(0)
            combined = combined - self.term.outside * parts["outside"]
        return [
            Score(value, {name: float(of[i]) for name, of in parts.items()})
            for i, value in enumerate(combined.tolist())
        ]

    def each(self, rollouts: Sequence[Rollout]) -> Tensor:
        """The raw reward of each rollout by each member, before any normalisation, [M, B]."""
        batch = beside(
            rollouts, rows_of(rollouts, self.tokenizer, as_sampled=self.shares_tokens), pad_id(self.tokenizer)
        )
        return torch.stack([self.outputs(member, batch).reward for member in self.members])

    def combined(self, raw: Tensor) -> Tensor:
        """What `each` has found, [M, B], normalised and combined into one reward, [B]."""
        scales = [normalisation(member) for member in self.members]
        return combine_members(
            torch.stack([(of - mean) / std for of, (mean, std) in zip(raw, scales, strict=True)]), self.term
        )

    def outputs(self, member: PreTrainedModel, batch: Batch) -> Outputs:
        """What one member is asked for; its hidden states cost nothing more."""
        names: list[Output] = ["reward", "feature"] if self.ranges else ["reward"]
        return self.engine.outputs(Roles(scorer=member), batch, names, micro_tokens=self.micro_tokens)

    def rewards(self, member: PreTrainedModel, out: Outputs) -> Tensor:
        """One member's normalised reward of each row, [B]."""
        mean, std = normalisation(member)
        return (out.reward - mean) / std


def rows_of(rollouts: Sequence[Rollout], tokenizer: PreTrainedTokenizerBase, *, as_sampled: bool) -> list[Row]:
    """Prompt and answer of each rollout: the tokens as sampled where they are this tokenizer's, else tokenised anew.

    Answers of which the text alone is known have no tokens.
    """
    if as_sampled and all(rollout.tokens for rollout in rollouts):
        return [
            Row(r.prompt_tokens + r.tokens, [False] * len(r.prompt_tokens) + [True] * len(r.tokens)) for r in rollouts
        ]
    return answered(tokenizer, [r.prompt for r in rollouts], [r.text for r in rollouts])


def same_tokens(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers write a conversation alike, so that one's tokens are the other's."""
    return first.get_vocab() == second.get_vocab() and first.chat_template == second.chat_template


def combine_members(values: Tensor, term: RewardTerm) -> Tensor:
    """Rewards of M members, [M, B], as one, [B]: mean, worst case, or mean - penalty * variance.

    Coste et al. 2023, section 3 (https://arxiv.org/abs/2310.02743); the variance is the population's.
    """
    if term.combine == "min":
        return values.min(0).values
    if term.combine == "uwo":
        return values.mean(0) - term.penalty * values.var(0, correction=0)
    return values.mean(0)


def normalisation(model: PreTrainedModel) -> tuple[float, float]:
    """`reward_mean` and `reward_std` of a reward model, (0, 1) where it has none."""
    config = model.config.to_dict()
    return float(config.get("reward_mean", 0.0)), float(config.get("reward_std", 1.0))


def as_critic(model: PreTrainedModel) -> None:
    """Make of a reward model what a critic starts from: values of single tokens, on the scale of the normalised rewards."""
    with torch.no_grad():
        score_head(model).weight /= normalisation(model)[1]
    if pooling(model) != "last":
        model.config.reward_pooling = "last"


def open_reward(
    folders: Sequence[str], term: RewardTerm, engine: Engine, *, micro_tokens: int, where: str,
    tokenizer: PreTrainedTokenizerBase | None = None, beside: PreTrainedModel | None = None,
) -> RewardModel:  # fmt: skip
    """A reward model from the folders of its members. `tokenizer` is the policy's, whose tokens are used as they are
    where the vocabularies agree. Members that are adapters on the base of `beside` share its weights."""
    if not has_head(load_config(folders[0], where)):
        raise ModelError(where, f"{folders[0]} is not a reward model", "give the folder of a reward stage")
    own = load_tokenizer(folders[0], where)
    loaded = [
        scorer_beside(beside, folder, own, where) if beside else load_scorer(folder, own, where, seed=None)
        for folder in folders
    ]
    members = [engine.place(model, inner=True) for model in loaded]
    ranges = [known for folder in folders if (known := load_range(folder))]
    ranges = ranges if len(ranges) == len(members) else []
    if term.outside and not ranges:
        fix = "set training_range = true in its reward stage, or leave outside out"
        raise ModelError(f"{where}.outside", f"{folders[0]} keeps no training range", fix)
    shares = tokenizer is not None and same_tokens(tokenizer, own)
    return RewardModel(members, own, engine, term, micro_tokens, shares, ranges)
