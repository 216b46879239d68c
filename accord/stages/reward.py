"""Reward models: an ensemble of scalar heads on pairs or rankings, with held-out or cross-validated accuracy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, compress
from pathlib import Path
from typing import Literal, cast

import torch
from pydantic import JsonValue
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord import processes
from accord.console import say
from accord.data import prepare
from accord.data.batch import Group, collate
from accord.data.records import Pair, Ranking, bucket
from accord.data.tokenizer import load_tokenizer, pad_id
from accord.engine import seed_all
from accord.errors import RecipeError
from accord.estimate import Estimate, mean
from accord.model import Roles, load_scorer, save_model
from accord.objectives import Objective
from accord.objectives.reward import all_pairs, bradley_terry, reward_of
from accord.recipe import Reward
from accord.run import StageFolder, read_rows, write_text
from accord.stages.fit import Context, fit_groups, limits_of, note_data


def run(context: Context, stage: Reward) -> None:
    """Fit `folds` models for the accuracy on unseen prompts, and the members; leaves `model/`, `model-1/`, ..."""
    path = context.path(stage.model)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    train, held = prepare.load(stage.data, stage.eval_data, context.where)
    limits = limits_of(stage, path, context)
    ranked = any(isinstance(record, Ranking) for record in [*train.records, *(held.records if held else [])])
    made = prepare.rankings if ranked else prepare.pairs
    objective = all_pairs if ranked else bradley_terry
    groups, records = made(train, tokenizer, limits, f"{context.where}.data")
    held_groups, held_records = made(held, tokenizer, limits, f"{context.where}.eval_data") if held else ([], [])
    note_data(context, train, len(groups), held, len(held_groups))

    fits = [Fit("fold", k) for k in range(stage.folds)] + [Fit("member", k) for k in range(stage.ensemble)]
    for fit in fits:
        if not any(fit.learns(record, stage) for record in records):
            option = "folds" if fit.kind == "fold" else "disjoint"
            said = f"the {len(records)} records of data leave {fit.kind} {fit.number} nothing to learn from"
            fix = f"every {fit.kind} needs prompts of its own: more data, or fewer {fit.kind}s"
            raise RecipeError(f"{context.where}.{option}", said, fix)

    def work(fit: Fit) -> None:
        learnt = [fit.learns(record, stage) for record in records]
        share = list(compress(groups, learnt))
        if fit.kind == "member":
            held_out = held_groups, held_records
        else:
            rest = [not yes for yes in learnt]
            held_out = list(compress(groups, rest)), list(compress(records, rest))
        fit_one(context, stage, objective, tokenizer, path, share, *held_out, fit)

    missing = processes.once(lambda: [fit for fit in fits if not fit.folder(context).record.get("done")])
    if context.engine.whole:
        if (beside := min(processes.count(), len(missing))) > 1:
            say(f"{context.name:<10} {beside} models beside each other; the progress is that of the first")
        processes.apart(missing, work, context.stop)
    else:
        for fit in missing:
            work(fit)
    logs = [(fit.folder(context).path / "metrics.jsonl").read_text(encoding="utf-8") for fit in fits]
    write_text(context.folder.path / "metrics.jsonl", "".join(logs))
    summarise(context, stage, held_records)


@dataclass(frozen=True)
class Fit:
    """One of the models that a stage fits: a member of the ensemble, or a fold of the cross-validation."""

    kind: Literal["member", "fold"]
    number: int

    @property
    def name(self) -> str:
        """As files have it."""
        return f"{self.kind}-{self.number}"

    def folder(self, context: Context) -> StageFolder:
        """Its log and its state while the stage is not done; several may be at work at a time."""
        return StageFolder(context.folder.state / self.name)

    def learns(self, record: Pair | Ranking, stage: Reward) -> bool:
        """Whether it learns from a record: a fold from all but its own share of the prompts, a member from all or its share."""
        if self.kind == "fold":
            return bucket(record, stage.folds) != self.number
        return not stage.disjoint or bucket(record, stage.ensemble) == self.number


def fit_one(
    context: Context,
    stage: Reward,
    objective: Objective,
    tokenizer: PreTrainedTokenizerBase,
    path: str,
    groups: Sequence[Group],
    held: Sequence[Group],
    held_records: Sequence[Pair | Ranking],
    fit: Fit,
) -> None:
    """Fit one model; leaves its rewards of the held-out pairs beside it."""
    own = replace(context, folder=fit.folder(context))
    own.folder.path.mkdir(parents=True, exist_ok=True)
    seed = context.seed + 1000 * fit.number + (500 if fit.kind == "fold" else 0)
    seed_all(seed)
    scorer = load_scorer(path, tokenizer, f"{context.where}.model", seed=seed, train=stage.lora)
    roles, pad = Roles(scorer=scorer), pad_id(tokenizer)
    fit_groups(own, stage, roles, objective, groups, held, pad=pad, seed=seed, tags={fit.kind: fit.number})
    if held:
        write_scores(context, stage, roles, held, held_records, pad, fit.name)
    if fit.kind == "member":
        normalise(context, stage, scorer, roles, groups, pad)
        save_model(scorer, tokenizer, context.folder.path / ("model" if fit.number == 0 else f"model-{fit.number}"))
    own.folder.note(done=True)


def rewards(context: Context, stage: Reward, roles: Roles, groups: Sequence[Group], pad: int) -> list[float]:
    """The raw reward of every row of every group, in order."""
    found: list[float] = []
    for i in range(0, len(groups), 64):
        batch = collate(groups[i : i + 64], pad)
        out = context.engine.outputs(roles, batch, ["score"], micro_tokens=stage.optim.micro_tokens)
        found += reward_of(out.score, batch).tolist()
    return found


def write_scores(
    context: Context, stage: Reward, roles: Roles, held: Sequence[Group], records: Sequence[Pair | Ranking], pad: int,
    name: str,
) -> None:  # fmt: skip
    """The rewards of held-out comparisons, a row each, for histograms and for anyone who wants to recount."""
    values = iter(rewards(context, stage, roles, held, pad))
    rows: list[dict[str, object]] = []
    for record, group in zip(records, held, strict=True):
        found = [next(values) for _ in group]
        labels = {"source": record.source, "prob": record.prob} if isinstance(record, Pair) else {}
        for better, worse in comparisons(record):
            both = {"chosen": found[better], "rejected": found[worse]}
            rows.append({"fit": name, **both, **labels, "cluster": bucket(record, 2**60)})
    write_text(scores_path(context, name), "".join(json.dumps(row) + "\n" for row in rows))


def scores_path(context: Context, name: str) -> Path:
    """`scores.jsonl` of member 0, and a file beside it for every other fit."""
    return context.folder.path / ("scores.jsonl" if name == "member-0" else f"scores-{name}.jsonl")


def normalise(
    context: Context, stage: Reward, scorer: PreTrainedModel, roles: Roles, groups: Sequence[Group], pad: int
) -> None:
    """Put mean and spread of the rewards of up to 256 training pairs into the configuration: scores come out near (0, 1)."""
    values = torch.tensor(rewards(context, stage, roles, groups[:256], pad))
    scorer.config.reward_mean = float(values.mean())
    scorer.config.reward_std = max(float(values.std(correction=0)), 1e-6)


def comparisons(record: Pair | Ranking) -> list[tuple[int, int]]:
    """The comparisons that a record holds, as (better, worse) places among its rows."""
    return [(0, 1)] if isinstance(record, Pair) else prepare.compared(record.ranks)


def summarise(context: Context, stage: Reward, held: Sequence[Pair | Ranking]) -> None:
    """Write the accuracies into stage.json, with standard errors clustered by the first user turn.

    Where held-out comparisons were labelled more than once: how often two labels agree, and the accuracy against one of
    them that a judge without error could reach if labels err alike and independently of each other.
    """
    result: dict[str, object] = {}
    if held:
        members = [read_rows(scores_path(context, f"member-{i}")) for i in range(stage.ensemble)]
        result["accuracy"] = accuracy([_average(rows) for rows in zip(*members, strict=True)])
        result["members"] = [accuracy(rows) for rows in members]
    if stage.folds:
        folds = [read_rows(scores_path(context, f"fold-{k}")) for k in range(stage.folds)]
        each = [fold["value"] for rows in folds if (fold := accuracy(rows))]
        result["folds"] = {**(accuracy([row for rows in folds for row in rows]) or {}), "each": each}
    if found := agreement(held):
        result |= {"agreement": found.to_json(), "ceiling": (1 + max(2 * found.value - 1, 0) ** 0.5) / 2}
    context.folder.note(result=result)


def agreement(records: Sequence[Pair | Ranking]) -> Estimate | None:
    """How often two labels of the same comparison agree; None where nothing was labelled twice."""
    labels: dict[tuple[int, str, str], list[bool]] = {}
    for record in records:
        texts = [record.chosen, record.rejected] if isinstance(record, Pair) else record.responses
        said = {(texts[better], texts[worse]) for better, worse in comparisons(record)}  # a text may stand there twice
        for better, worse in sorted(said):
            first, second = sorted((better, worse))
            labels.setdefault((bucket(record, 2**60), first, second), []).append(better == first)
    both = [
        (key[0], float(a == b)) for key, said in labels.items() for a, b in combinations(said, 2) if key[1] != key[2]
    ]
    return mean([same for _, same in both], [cluster for cluster, _ in both]) if both else None


def accuracy(rows: Sequence[dict[str, JsonValue]]) -> dict[str, float] | None:
    """The share of pairs whose chosen answer has the higher reward; a tie counts half."""
    margins = [cast(float, row["chosen"]) - cast(float, row["rejected"]) for row in rows]
    found = mean([0.5 if m == 0 else float(m > 0) for m in margins], [str(row["cluster"]) for row in rows])
    return found.to_json() if found else None


def _average(rows: tuple[dict[str, JsonValue], ...]) -> dict[str, JsonValue]:
    """The members' rows of one pair as the ensemble's: the mean reward."""
    both = {side: sum(cast(float, row[side]) for row in rows) / len(rows) for side in ("chosen", "rejected")}
    return {**rows[0], **both}
