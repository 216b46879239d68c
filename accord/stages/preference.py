"""Preference optimisation: DPO, or an objective of the user's, on pairs and against a frozen reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from accord.data import prepare
from accord.data.batch import Group, collate
from accord.data.tokenizer import load_tokenizer, pad_id
from accord.engine import seed_all
from accord.model import Roles, load_policy, save_model
from accord.objectives import check_params, resolve
from accord.objectives.preference import OBJECTIVES
from accord.recipe import Preference
from accord.run import write_file
from accord.stages.fit import Context, fit_groups, limits_of, note_data


def run(context: Context, stage: Preference) -> None:
    """Train on pairs; the reference's log-probs are computed once, kept on disk, and the reference leaves memory."""
    path = context.path(stage.model)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    objective = resolve(stage.objective, OBJECTIVES, f"{context.where}.objective")
    params: dict[str, object] = dict(stage.params)
    check_params(objective, params, f"{context.where}.params")
    train, held = prepare.load(stage.data, stage.eval_data, context.where)
    limits = limits_of(stage, path, context)
    groups, _ = prepare.pairs(train, tokenizer, limits, f"{context.where}.data")
    held_groups, _ = prepare.pairs(held, tokenizer, limits, f"{context.where}.eval_data") if held else ([], [])
    note_data(context, train, len(groups), held, len(held_groups))
    if "ref_logp" in objective.needs:
        add_reference(context, stage, tokenizer, [*groups, *held_groups])

    seed_all(context.seed)
    policy = load_policy(path, tokenizer, f"{context.where}.model", train=stage.lora, seed=context.seed)
    result = fit_groups(
        context, stage, Roles(policy=policy), objective, groups, held_groups, pad=pad_id(tokenizer), seed=context.seed,
        params=params,
    )  # fmt: skip
    context.folder.note(result=result)
    save_model(policy, tokenizer, context.folder.model)


def add_reference(
    context: Context, stage: Preference, tokenizer: PreTrainedTokenizerBase, groups: Sequence[Group]
) -> None:
    """Give every row the reference's log-prob of each of its answer's tokens (`ref_logp`, 0 elsewhere)."""
    rows = [row for group in groups for row in group]
    lengths = [len(row) for row in rows]
    path = context.folder.path / "ref_logp.pt"
    values = _kept(path, sum(lengths))
    if values is None:
        reference = load_policy(context.path(stage.reference or stage.model), tokenizer, f"{context.where}.reference")
        values = reference_logp(context, Roles(policy=context.engine.place(reference)), groups, tokenizer, stage)
        made = values
        write_file(path, lambda draft: torch.save(made, draft))
    for row, of_row in zip(rows, values.split(lengths), strict=True):
        row.extra["ref_logp"] = of_row.tolist()


def _kept(path: Path, tokens: int) -> Tensor | None:
    """Log-probs that an interrupted run of this very stage has left, if they are complete."""
    if not path.exists():
        return None
    try:
        values = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError):  # damaged: computed again
        return None
    return values if len(values) == tokens else None


def reference_logp(
    context: Context, roles: Roles, groups: Sequence[Group], tokenizer: PreTrainedTokenizerBase, stage: Preference
) -> Tensor:
    """The log-prob of every token of every row under a frozen policy, one row after the other, [tokens]."""
    found: list[Tensor] = []
    for i in range(0, len(groups), 64):
        batch = collate(groups[i : i + 64], pad_id(tokenizer))
        out = context.engine.outputs(roles, batch, ["logp"], micro_tokens=stage.optim.micro_tokens)
        found.append(out.logp[batch.attend])
    return torch.cat(found)
