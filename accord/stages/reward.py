"""Reward models: an ensemble of scalar heads on judged answers, with held-out or cross-validated accuracy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from transformers import PreTrainedTokenizerBase

from accord import processes
from accord.console import say
from accord.data import judged, prepare
from accord.data.judged import Form, Judged, comparisons, form_of
from accord.data.records import Pair, bucket
from accord.data.rows import Group, Rows
from accord.data.tokenizer import load_tokenizer, pad_id
from accord.engine import seed_all
from accord.errors import RecipeError
from accord.model import load_scorer, save_model
from accord.objectives import Objective, resolve
from accord.objectives.reward import OBJECTIVES, all_pairs, bradley_terry
from accord.outputs import Roles
from accord.pitfalls.live import findings
from accord.recipe import Reward
from accord.run import StageFolder, read_rows, write_text
from accord.stages.fit import Context, fit_groups, limits_of, note_data
from accord.stages.learning_curve import learning_curve
from accord.stages.reward_quality import accuracy, agreement, average, ceiling, member, quality, suspicion, to_json
from accord.stages.reward_scale import measured_on, normalise, rewards, training_range

Kind: TypeAlias = Literal["fold", "share", "member"]
# Why a fit may have nothing to learn from, and what helps.
OPTIONS: dict[Kind, tuple[str, str]] = {
    "fold": ("folds", "fewer folds"), "share": ("learning_curve", "larger shares"), "member": ("disjoint", "fewer members"),
}  # fmt: skip
SHARES = 9973  # a prime, so that shares do not line up with `part`, folds and what is held out


def run(context: Context, stage: Reward) -> None:
    """Fit `folds` models for the accuracy on unseen prompts, and the members; leaves `model/`, `model-1/`, ..."""
    path = context.path(stage.model)
    tokenizer = load_tokenizer(path, f"{context.where}.model")
    data = read(context, stage, tokenizer, path)
    counts: dict[Kind, int] = {"fold": stage.folds, "share": len(stage.learning_curve), "member": stage.ensemble}
    fits = [Fit(kind, k) for kind, count in counts.items() for k in range(count)]
    for fit in fits:
        if not any(fit.learns(record, stage) for record in data.records):
            said = f"the {len(data.records)} records of data leave {fit.kind} {fit.number} nothing to learn from"
            option, fix = OPTIONS[fit.kind]
            raise RecipeError(
                f"{context.where}.{option}", said, f"every {fit.kind} needs prompts of its own: more data, or {fix}"
            )

    def work(fit: Fit) -> None:
        fit_one(context, stage, tokenizer, path, data.of(fit, stage), measured, fit)

    missing = processes.once(lambda: [fit for fit in fits if not fit.folder(context).record.get("done")])
    measured = measured_on(context, stage, tokenizer, path, data.records) if missing else []
    if context.engine.whole:
        if (beside := min(processes.count(), len(missing))) > 1:
            say(f"{context.name:<10} {beside} models beside each other; the progress is that of the first")
        processes.apart(missing, work, context.stop)
    else:
        for fit in missing:
            work(fit)
    logs = [(fit.folder(context).path / "metrics.jsonl").read_text(encoding="utf-8") for fit in fits]
    write_text(context.folder.path / "metrics.jsonl", "".join(logs))
    said = [finding for fit in fits for finding in findings(fit.folder(context))]
    if said:
        context.folder.note(findings=said)
    summarise(context, stage, data)


@dataclass(frozen=True)
class Material:
    """What one model learns from and is judged by: rows, and the records that they are of."""

    form: Form
    groups: Rows
    records: Sequence[Judged]
    held: Sequence[Group]
    held_records: Sequence[Judged]

    def of(self, fit: Fit, stage: Reward) -> Material:
        """What a fit has of it; a fold is judged by what it does not learn from."""
        learnt = [fit.learns(record, stage) for record in self.records]
        share = replace(
            self, groups=self.groups.select(np.flatnonzero(learnt)), records=list(compress(self.records, learnt))
        )
        if fit.kind != "fold":
            return share
        rest = [not yes for yes in learnt]
        return replace(
            share, held=self.groups.select(np.flatnonzero(rest)), held_records=list(compress(self.records, rest))
        )


def read(context: Context, stage: Reward, tokenizer: PreTrainedTokenizerBase, path: str) -> Material:
    """The stage's data in the form that its objective learns from."""
    train, held = prepare.load(stage.data, stage.eval_data, context.where)
    limits = limits_of(stage, path, context)
    ties = stage.objective == "plackett_luce" or stage.params.get("ties") is True
    every = [*train.records, *(held.records if held else [])]
    form = form_of(stage.objective, every, split=stage.split_rankings)
    groups, records = judged.rows(train, tokenizer, limits, f"{context.where}.data", form=form, ties=ties)
    held_groups, held_records = [], []
    if held:  # a tie that has become a pair would be one that nobody can be right about
        where, decided = f"{context.where}.eval_data", ties and form == "rankings"
        held_groups, held_records = judged.rows(held, tokenizer, limits, where, form=form, ties=decided)
    note_data(context, train, len(groups), held, len(held_groups))
    return Material(form, groups, records, held_groups, held_records)


def loss_of(stage: Reward, form: Form, where: str) -> tuple[Objective, dict[str, object]]:
    """The objective on rows of this form, and its parameters."""
    params: dict[str, object] = dict(stage.params)
    if stage.objective != "bradley_terry":
        return resolve(stage.objective, OBJECTIVES, f"{where}.objective"), params
    ranked = form == "rankings"
    foreign = "margin" if ranked else "ties"
    return all_pairs if ranked else bradley_terry, {name: v for name, v in params.items() if name != foreign}


@dataclass(frozen=True)
class Fit:
    """One of the models that a stage fits: a member of the ensemble, a fold of the cross-validation, or a share of the
    data for the learning curve."""

    kind: Kind
    number: int

    @property
    def name(self) -> str:
        """As files have it."""
        return f"{self.kind}-{self.number}"

    def folder(self, context: Context) -> StageFolder:
        """Its log and its state while the stage is not done; several may be at work at a time."""
        return StageFolder(context.folder.state / self.name)

    def learns(self, record: Judged, stage: Reward) -> bool:
        """Whether it learns from a record: a fold from all but its own part of the prompts, a member from all or its part."""
        if self.kind == "fold":
            return bucket(record, stage.folds) != self.number
        if self.kind == "share":
            return bucket(record, SHARES) < stage.learning_curve[self.number] * SHARES
        return not stage.disjoint or bucket(record, stage.ensemble) == self.number


def fit_one(
    context: Context, stage: Reward, tokenizer: PreTrainedTokenizerBase, path: str, data: Material,
    measured: Sequence[Group], fit: Fit,
) -> None:  # fmt: skip
    """Fit one model; leaves its rewards of the held-out answers beside it. `measured` is what its scale is taken from."""
    own = replace(context, folder=fit.folder(context))
    own.folder.path.mkdir(parents=True, exist_ok=True)
    number = 0 if fit.kind == "share" else fit.number  # a share begins as member 0 does
    seed = context.seed + 1000 * number + (500 if fit.kind == "fold" else 0)
    seed_all(seed)
    scorer = load_scorer(path, tokenizer, f"{context.where}.model", seed=seed, train=stage.lora)
    if stage.pooling:
        scorer.config.reward_pooling = stage.pooling
    roles, pad = Roles(scorer=scorer), pad_id(tokenizer)
    objective, params = loss_of(stage, data.form, context.where)
    fit_groups(
        own, stage, roles, objective, data.groups, data.held, pad=pad, seed=seed, params=params,
        tags={fit.kind: fit.number},
    )  # fmt: skip
    if data.held:
        write_scores(context, stage, roles, data, pad, fit.name)
    if fit.kind == "member":
        normalise(context, stage, scorer, data.groups, measured, pad)
        known = training_range(context, stage, scorer, data.groups, data.held, pad) if stage.training_range else None
        folder = context.folder.path / ("model" if fit.number == 0 else f"model-{fit.number}")
        save_model(scorer, tokenizer, folder, also=known.save if known else None)
    own.folder.note(done=True)


def write_scores(context: Context, stage: Reward, roles: Roles, data: Material, pad: int, name: str) -> None:
    """The rewards of held-out comparisons (and ratings), a row each, for histograms and for anyone who wants to recount."""
    values = rewards(context, stage, roles, data.held, pad)
    rows: list[dict[str, object]] = []
    for found in comparisons(data.held_records):
        both = {"chosen": values[found.better], "rejected": values[found.worse]}
        rows.append({"fit": name, **both, **_labels(found.record), "cluster": bucket(found.record, 2**60)})
    if data.form == "ratings":
        rated = zip(data.held_records, data.held, values, strict=True)
        rows += [
            {"fit": name, "reward": value, "label": group[0].extra["label"], "cluster": bucket(record, 2**60)}
            for record, group, value in rated
        ]
    write_text(scores_path(context, name), "".join(json.dumps(row) + "\n" for row in rows))


def _labels(record: Judged) -> dict[str, object]:
    if not isinstance(record, Pair):
        return {}
    given = {} if record.margin is None else {"margin": record.margin}
    return {"source": record.source, "prob": record.prob, **given}


def scores_path(context: Context, name: str) -> Path:
    """`scores.jsonl` of member 0, and a file beside it for every other fit."""
    return context.folder.path / ("scores.jsonl" if name == "member-0" else f"scores-{name}.jsonl")


def summarise(context: Context, stage: Reward, data: Material) -> None:
    """Write into stage.json how well held-out judgements are told, with standard errors clustered by the first user turn.

    Where held-out comparisons were labelled more than once: how often two labels agree, and the accuracy against one of
    them that a judge without error could reach if labels err alike and independently of each other.
    """
    calibrated = data.form != "ratings"  # rewards that were fitted to ratings are no log-odds
    members = [read_rows(scores_path(context, f"member-{i}")) for i in range(stage.ensemble)] if data.held else []
    whole = average(members)
    result = quality(whole, calibrated=calibrated)
    if whole:
        result["members"] = [member(rows, calibrated=calibrated) for rows in members]
    if stage.folds:
        folds = [read_rows(scores_path(context, f"fold-{k}")) for k in range(stage.folds)]
        every = accuracy([row for rows in folds for row in rows])
        each = [found.value for rows in folds if (found := accuracy(rows))]
        result |= {"folds": {**to_json(every), "each": each}} if every else {}
    most = None
    if agreed := agreement(data.held_records):
        most = ceiling(agreed)
        result |= {"agreement": to_json(agreed), "ceiling": most.value}
    if (reached := accuracy(whole)) and (said := suspicion(reached, most)):
        result["warning"] = said
    if stage.learning_curve:
        shares = [Fit("share", k) for k in range(len(stage.learning_curve))]
        learnt = [(data.of(fit, stage), fit) for fit in [*shares, Fit("member", 0)]]
        points = [(len(of.records), read_rows(scores_path(context, fit.name))) for of, fit in learnt]
        result |= learning_curve(points, most)
    for key in ("warning", "more_labels"):
        if key in result:
            say(f"{context.name:<10} {result[key]}")
    context.folder.note(result=result)
