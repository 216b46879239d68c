"""Preference optimisation: DPO and its family, or an objective of the user's, on pairs or on rated answers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.data import prepare
from accord.data.batch import Batch, collate
from accord.data.rows import Rows
from accord.data.tokenizer import load_tokenizer, pad_id
from accord.engine import Engine, seed_all
from accord.estimate import ratio
from accord.model import load_policy, save_model
from accord.objectives import check_params, resolve
from accord.objectives.preference import OBJECTIVES, log_ratio
from accord.outputs import Roles
from accord.recipe import Preference
from accord.stages.fit import Context, fit_groups, limits_of, note_data
from accord.stages.reference import Reference, of_evaluation, of_training

SURPRISED = 16  # groups of rows that are looked at for surprise: more would keep the first step waiting


def run(context: Context, stage: Preference) -> None:
    """Train on pairs or, where the objective needs a `label`, on rated answers.

    The reference's log-probs are computed once and kept on disk; it is in memory only for that.
    """
    path = context.path(stage.model)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    objective = resolve(stage.objective, OBJECTIVES, f"{context.where}.objective")
    params: dict[str, object] = dict(stage.params)
    check_params(objective, params, f"{context.where}.params")
    needed = objective.needed(params)
    groups, held_groups = read(context, stage, tokenizer, path, needed)
    reference: Reference | None = None
    if "ref_logp" in needed or "label" in needed:
        reference = of_training(context, stage, tokenizer, groups)
        groups = reference.rows
        if held_groups:
            held_groups = of_evaluation(context, stage, tokenizer, held_groups).rows

    seed_all(context.seed)
    policy = load_policy(path, tokenizer, f"{context.where}.model", train=stage.lora, seed=context.seed)
    roles = Roles(policy=policy)

    def complete(batches: Sequence[Batch]) -> list[Batch]:
        return with_baseline(context.engine, roles, batches, micro_tokens=stage.optim.micro_tokens)

    met = context.folder.record.get("result")  # there already, where a stage goes on
    if not isinstance(met, dict):
        met = surprise(context, stage, roles, groups, pad_id(tokenizer), rated="label" in needed)
        context.folder.note(result=met)
    result = fit_groups(
        context, stage, roles, objective, groups, held_groups or [], pad=pad_id(tokenizer), seed=context.seed,
        params=params, complete=complete if "label" in needed else list, ready=reference.ready if reference else None,
    )  # fmt: skip
    context.folder.note(result={**result, **met})
    save_model(policy, tokenizer, context.folder.model)


def read(
    context: Context, stage: Preference, tokenizer: PreTrainedTokenizerBase, path: str, needed: Sequence[str]
) -> tuple[Rows, Rows | None]:
    """The rows to learn from, and those held out, with what the objective `needs`."""
    train, held = prepare.load(stage.data, stage.eval_data, context.where)
    limits = limits_of(stage, path, context)
    made = prepare.unpaired if "label" in needed else prepare.pairs
    groups, _ = made(train, tokenizer, limits, f"{context.where}.data")
    held_groups, _ = made(held, tokenizer, limits, f"{context.where}.eval_data") if held else (None, [])
    note_data(context, train, len(groups), held, len(held_groups or []))
    return groups, held_groups


def surprise(
    context: Context, stage: Preference, roles: Roles, groups: Rows, pad: int, *, rated: bool
) -> dict[str, object]:
    """`surprise`: by how many nats per token the first answers are less likely to the model, as it comes in, than its own are.

    Those have -log p equal to the entropy at every token, on average, at temperature 1.
    """
    batch = collate(groups[:SURPRISED], pad)
    if rated:  # beside each row stands an answer to another prompt
        batch = batch.select(torch.arange(0, len(batch), 2))
    cast(PreTrainedModel, roles.policy).to(context.engine.device)  # pyright: ignore[reportArgumentType]
    out = context.engine.outputs(roles, batch, ["logp", "entropy"], micro_tokens=stage.optim.micro_tokens)
    above, below = -(out.logp + out.entropy).sum(1), batch.train.sum(1)
    found = ratio(above.tolist(), below.tolist(), batch.group.tolist())
    return {"surprise": found.to_json()} if found and isfinite(found.stderr) else {}


def needs(stage: Preference, where: str) -> Sequence[str]:
    """What the objective wants to be told of each row."""
    return resolve(stage.objective, OBJECTIVES, f"{where}.objective").needed(dict(stage.params))


def with_baseline(engine: Engine, roles: Roles, batches: Sequence[Batch], *, micro_tokens: int) -> list[Batch]:
    """Rated answers without the rows beside them, and with what couples them over all batches: `baseline`, `good_share`.

    The baseline is KTO's z0 = max(0, mean log(pi / pi_ref)) of answers to other prompts, under the policy as it is now and
    without gradient (Ethayarajh et al. 2024, section 4.1, https://arxiv.org/abs/2402.01306). The paper and TRL shift answers by
    one within a batch; here each prompt has the same other answer in every pass, so that its reference is computed once.
    """
    own = [batch.select(torch.arange(0, len(batch), 2)) for batch in batches]
    other = [batch.select(torch.arange(1, len(batch), 2)) for batch in batches]
    found = [engine.outputs(roles, batch, ["logp"], micro_tokens=micro_tokens) for batch in other]
    gain = torch.cat([log_ratio(out, batch) for out, batch in zip(found, other, strict=True)])
    good = torch.cat([batch["label"] for batch in own])
    for batch in own:
        batch.extra["baseline"] = gain.mean().clamp(min=0).expand(len(batch))
        batch.extra["good_share"] = good.mean().expand(len(batch))
    return own
