"""Losses and gradients of the whole training path against formulas written out with plain transformers.

One step of plain gradient descent with a large learning rate (a power of two) shows the gradient that the optimizer saw:
(before - after) / lr, with hardly any rounding.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, cast

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import DATA, needs_data, tiny_llama
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.functional import log_softmax, logsigmoid
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from accord import stages
from accord.data import prepare
from accord.data.batch import Batch, Group, Row, collate
from accord.data.prepare import Limits
from accord.data.tokenizer import load_tokenizer
from accord.engine import Engine, Learner, Part
from accord.health import Spikes
from accord.model import load_scorer
from accord.objectives import Objective
from accord.objectives.likelihood import sft
from accord.objectives.preference import OBJECTIVES as FAMILY
from accord.objectives.preference import dpo, kto
from accord.objectives.reward import all_pairs, best_of_k, bradley_terry, plackett_luce, regression
from accord.outputs import Roles
from accord.recipe import Compute, Optim, Source, Table
from accord.recipe_file import parse
from accord.stages.preference import with_baseline

Kind: TypeAlias = Literal["sft", "reward", "preference", "kto"]
Gradients: TypeAlias = dict[str, Tensor]
OBJECTIVES: dict[Kind, Objective] = {"sft": sft, "reward": bradley_terry, "preference": dpo, "kto": kto}
LR = 2.0**14  # so large that the weights before the step do not round the gradient away
BETA = 0.3  # not the default
DESIRABLE = 1.7
PARAMS: dict[Kind, dict[str, object]] = {
    "sft": {}, "reward": {}, "preference": {"beta": BETA}, "kto": {"beta": BETA, "desirable": DESIRABLE}
}  # fmt: skip
REFERENCED = ("preference", "kto")
kinds = pytest.mark.parametrize("kind", list(OBJECTIVES))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models run fastest on one thread, by far where other programs keep the cores busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ------------------------------------------------------------------------------------------------------------- the rows


def ragged(lengths: Sequence[int], seed: int) -> list[Row]:
    """Random tokens, never the pad token 0; the train mask has holes and ends in a trained token."""
    draw = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(1, 320, (length,), generator=draw).tolist() for length in lengths]
    masks = [(torch.rand(length, generator=draw) < 0.6).tolist() for length in lengths]
    return [Row(row, [False, *mask[1:-1], True]) for row, mask in zip(tokens, masks, strict=True)]


def by_hand(kind: Kind, seed: int = 1) -> list[Group]:
    """Ragged rows, or pairs of them: with soft labels and weights, or a rated answer and one in its place."""
    if kind == "sft":
        return [[row] for row in ragged([7, 30, 2, 18, 11, 45, 5], seed)]
    rows = ragged([9, 31, 17, 5, 2, 40, 23, 23, 12, 3, 6, 19, 28, 7], seed)
    probs, weights = [1.0, 0.7, 0.25, 1.0, 0.9, 0.5, 0.0], [1.0, 2.0, 0.5, 1.0, 0.1, 1.5, 3.0]
    labels = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    for i, row in enumerate(rows):
        soft: dict[str, float | list[float]] = {"prob": probs[i // 2], "weight": weights[i // 2]}
        row.extra = {"label": labels[i // 2]} if kind == "kto" else soft
    return [rows[i : i + 2] for i in range(0, len(rows), 2)]


def real(kind: Kind, tokenizer: PreTrainedTokenizerBase) -> list[Group]:
    """The first rows of hh-rlhf that fit into the context."""
    name = DATA / "hh_rlhf" / "helpful-base.test.jsonl.gz"
    loaded, _ = prepare.load([Source(source=str(name), limit=60)], None, "test")
    if kind == "sft":
        return list(prepare.demonstrations(loaded, tokenizer, Limits(512), "test")[:5])
    made = prepare.unpaired if kind == "kto" else prepare.pairs
    return list(made(loaded, tokenizer, Limits(512), "test")[0][:5])


def flat(groups: Sequence[Group]) -> list[Row]:
    return [row for group in groups for row in group]


# ----------------------------------------------------------------------------------------------------- what is expected


def inputs(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Rows padded on the right, as plain transformers takes them."""
    width = max(len(row) for row in rows)
    return {
        "input_ids": torch.tensor([row.tokens + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        "position_ids": torch.arange(width).expand(len(rows), -1),
    }


def plain_logp(model: PreTrainedModel, rows: Sequence[Row]) -> Tensor:
    """Log-probability of each row's train tokens, summed: [B]."""
    return plain_token_logp(model, rows).sum(1)  # in float64: sums of hundreds of tokens, whose rounding would show


def plain_token_logp(model: PreTrainedModel, rows: Sequence[Row]) -> Tensor:
    """Log-probability of each train token but the first of a row, 0 for the others: [B, T-1] float64."""
    given = inputs(rows)
    everything = log_softmax(model(**given).logits[:, :-1], dim=-1)
    picked = everything.gather(2, given["input_ids"][:, 1:, None])[..., 0]
    width = picked.shape[1]
    train = torch.tensor([(row.train[1:] + [False] * width)[:width] for row in rows])
    return picked.double() * train


def plain_loss(
    kind: Kind, model: PreTrainedModel, groups: Sequence[Group], reference: PreTrainedModel | None
) -> Tensor:
    """The loss of all rows at once."""
    rows = flat(groups)
    if kind == "sft":
        return -plain_logp(model, rows).sum() / sum(sum(row.train) for row in rows)
    if reference is None:
        value = model(**inputs(rows)).logits[:, 0]
    else:
        with torch.no_grad():
            held = plain_logp(reference, rows)
        value = BETA * (plain_logp(model, rows) - held)
    if kind == "kto":
        baseline = value[1::2].detach().mean().clamp(min=0)
        assert baseline > 0.1
        good = torch.tensor([group[0].extra["label"] == 1 for group in groups])
        gain = torch.where(good, value[0::2] - baseline, baseline - value[0::2])
        return (torch.where(good, DESIRABLE, 1.0) * (1 - torch.sigmoid(gain))).mean()
    margin = value[0::2] - value[1::2]
    prob = torch.tensor([group[0].extra["prob"] for group in groups])
    weight = torch.tensor([group[0].extra["weight"] for group in groups])
    return -(weight * (prob * logsigmoid(margin) + (1 - prob) * logsigmoid(-margin))).mean()


def plain(
    kind: Kind, model: PreTrainedModel, groups: Sequence[Group], reference: PreTrainedModel | None = None
) -> tuple[float, Gradients]:
    """The loss and every parameter's gradient."""
    loss = plain_loss(kind, model, groups, reference)
    names, weights = zip(*model.named_parameters(), strict=True)
    return loss.item(), dict(zip(names, torch.autograd.grad(loss, weights), strict=True))


def moved(before: nn.Module, after: nn.Module) -> Gradients:
    """The gradient that a step took, by the weights before and after."""
    new = dict(after.named_parameters())
    return {name: (old.double() - new[name].double()).detach() / LR for name, old in before.named_parameters()}


def assert_close(found: Gradients, expected: Gradients, *, bound: float = 1e-5) -> None:
    """Tensor by tensor: the norm of the difference over the norm of what is expected."""
    assert found.keys() == expected.keys()
    errors = {name: float((found[name] - x).norm() / x.norm()) for name, x in expected.items()}
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] < bound, f"{worst}: {errors[worst]:.1e}"


def tiny(kind: Kind, *, seed: int = 0) -> PreTrainedModel:
    """A tiny Llama, with a scalar head for a reward model.

    Its weights are enlarged, so that attention looks at some tokens more than at others and every gradient counts.
    """
    model: PreTrainedModel = tiny_llama(seed=seed, context=512)
    if kind == "reward":
        config = LlamaConfig(**{**model.config.to_dict(), "num_labels": 1})
        model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4 if weight.dim() == 2 else 1)
    return model


def roles(kind: Kind, model: PreTrainedModel) -> Roles:
    return Roles(scorer=model) if kind == "reward" else Roles(policy=model)


def completed(kind: Kind, engine: Engine, learner: Learner, batch: Batch) -> Batch:
    """The batch with what a stage puts into it just before its update."""
    if kind != "kto":
        return batch
    return with_baseline(engine, learner.roles, [batch], micro_tokens=learner.micro_tokens)[0]


# ---------------------------------------------------------------------------------------------------------- one update


@kinds
@pytest.mark.parametrize("source", ["by_hand", pytest.param("hh_rlhf", marks=needs_data)])
def test_an_update_takes_the_plain_gradient_for_any_split(engine: Engine, base: Path, kind: Kind, source: str) -> None:
    groups = by_hand(kind) if source == "by_hand" else real(kind, load_tokenizer(base, "test"))
    model = tiny(kind)
    # Of the reference of kto the seed is one under which the baseline is not clamped.
    reference = tiny(kind, seed=15 if kind == "kto" else 5) if kind in REFERENCED else None
    if reference is not None:
        with torch.no_grad():
            for row, logp in zip(flat(groups), plain_token_logp(reference, flat(groups)).tolist(), strict=True):
                row.extra["ref_logp"] = [0.0, *logp[: len(row) - 1]]
    loss, expected = plain(kind, model, groups, reference)
    norm = float(torch.stack([gradient.norm() for gradient in expected.values()]).norm())

    straight = list(range(len(groups)))
    mixed = [*straight[1::2], *straight[0::2][::-1]]
    medium = 3 * max(len(row) for row in flat(groups))
    splits = []
    for micro_tokens, order in ((1, straight), (medium, mixed), (10**9, straight), (10**9, mixed)):
        trained = copy.deepcopy(model)
        optim = Optim(name="sgd", lr=LR, clip=0, micro_tokens=micro_tokens)
        learner = engine.learner(roles(kind, trained), optim)
        batch = completed(kind, engine, learner, collate([groups[i] for i in order], 0))
        splits.append(len(batch.micro(micro_tokens)))
        numbers = engine.update(learner, batch, OBJECTIVES[kind], PARAMS[kind])
        assert numbers["loss"] == pytest.approx(loss, rel=1e-5)
        assert numbers["grad_norm"] == pytest.approx(norm, rel=1e-5)
        assert_close(moved(model, trained), expected)
    assert len(groups) == splits[0] > splits[1] > splits[2] == splits[3] == 1


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "kto"])
def test_every_objective_on_pairs_has_one_gradient_for_any_split(engine: Engine, name: str) -> None:
    groups = by_hand("preference")
    for row in flat(groups):
        row.extra["ref_logp"] = [-5.0 * train for train in row.train]
    found: list[Gradients] = []
    for micro_tokens in (10**9, 100, 1):
        model = tiny("preference")
        trained = copy.deepcopy(model)
        learner = engine.learner(
            roles("preference", trained), Optim(name="sgd", lr=LR, clip=0, micro_tokens=micro_tokens)
        )
        engine.update(learner, collate(groups, 0), FAMILY[name], {})
        found.append(moved(model, trained))
    assert_close(found[1], found[0])
    assert_close(found[2], found[0])


def test_a_mix_adds_its_own_mean_gradient(engine: Engine) -> None:
    model = tiny("preference")
    pairs, rows = by_hand("preference"), by_hand("sft", seed=3)
    reference = tiny("preference", seed=5)
    with torch.no_grad():
        for row, logp in zip(flat(pairs), plain_token_logp(reference, flat(pairs)).tolist(), strict=True):
            row.extra["ref_logp"] = [0.0, *logp[: len(row) - 1]]
    loss, first = plain("preference", model, pairs, reference)
    nll, second = plain("sft", model, rows)
    expected = {name: first[name] + 0.3 * second[name] for name in first}
    for micro_tokens in (1, 10**9):
        trained = copy.deepcopy(model)
        optim = Optim(name="sgd", lr=LR, clip=0, micro_tokens=micro_tokens)
        learner = engine.learner(roles("preference", trained), optim)
        mix = Part(collate(rows, 0), OBJECTIVES["sft"], weight=0.3, name="mix")
        numbers = engine.update(learner, collate(pairs, 0), OBJECTIVES["preference"], PARAMS["preference"], mix=mix)
        assert numbers["loss"] == pytest.approx(loss + 0.3 * nll, rel=1e-5)
        assert numbers["mix/loss"] == pytest.approx(nll, rel=1e-5)
        assert_close(moved(model, trained), expected)


RANKS = [[2, 1, 3, 4], [1, 2], [1, 1, 2], [3, 2, 1, 1, 2]]  # of rankings of any size, ties among them


def of_ranking(name: str, reward: Tensor, rank: Sequence[int]) -> Tensor:
    """The loss of one ranking, written out."""
    if name == "best_of_k":
        return torch.stack([-log_softmax(reward, 0)[i] for i, r in enumerate(rank) if r == min(rank)]).mean()
    if name == "plackett_luce":
        left = [[j for j, other in enumerate(rank) if other >= r] for r in rank]
        return torch.stack([reward[x].logsumexp(0) - reward[i] for i, x in enumerate(left) if len(x) > 1]).mean()
    losses = [
        -(logsigmoid(reward[i] - reward[j]) if rank[i] < rank[j] else logsigmoid((reward[i] - reward[j]) * one).mean())
        + 0.05 * (reward[i] + reward[j]) ** 2
        for one in [torch.tensor([1.0, -1.0])]
        for i in range(len(rank)) for j in range(len(rank)) if rank[i] < rank[j] or (rank[i] == rank[j] and i < j)
    ]  # fmt: skip
    return torch.stack(losses).mean()


def of_judgements(name: str) -> tuple[Objective, dict[str, object], list[Group]]:
    """An objective with its parameters, and ragged rows with what it reads."""
    if name == "regression":
        groups = [[row] for row in ragged([7, 30, 2, 18, 11, 45, 5], seed=4)]
        for i, (row,) in enumerate(groups):
            row.extra = {"label": 0.5 * i - 1}
        return regression, {}, groups
    if name == "margin":
        groups = by_hand("reward")
        for i, row in enumerate(flat(groups)):
            row.extra["margin"] = 0.25 * (i // 2)
        return bradley_terry, {"margin": True, "centre": 0.05}, groups
    rows = iter(ragged([9, 31, 17, 5, 2, 40, 23, 23, 12, 3, 6, 19, 28, 7], seed=4))
    groups = [[next(rows) for _ in rank] for rank in RANKS]
    for group, rank in zip(groups, RANKS, strict=True):
        pairs = [(i, j) for i in range(len(rank)) for j in range(len(rank)) if rank[i] < rank[j]]
        ties = sum(rank.count(r) * (rank.count(r) - 1) // 2 for r in set(rank))
        for row, r in zip(group, rank, strict=True):
            row.extra = {"rank": r, "share": 1 / (len(pairs) + ties)}
    found = {"plackett_luce": plackett_luce, "best_of_k": best_of_k, "all_pairs": all_pairs}[name]
    return found, {"ties": True, "centre": 0.05} if name == "all_pairs" else {}, groups


def of_rewards(name: str, reward: Tensor, groups: Sequence[Group]) -> Tensor:
    """The loss of all rows, written out."""
    if name == "regression":
        return (reward - torch.tensor([group[0].extra["label"] for group in groups])).square().mean()
    if name == "margin":
        good, bad = reward[0::2], reward[1::2]
        prob, weight, least = (
            torch.tensor([group[0].extra[key] for group in groups]) for key in ("prob", "weight", "margin")
        )
        nll = -prob * logsigmoid(good - bad - least) - (1 - prob) * logsigmoid(bad - good - least)
        return (weight * (nll + 0.05 * (good + bad) ** 2)).mean()
    each = reward.split([len(group) for group in groups])
    return torch.stack([of_ranking(name, one, rank) for one, rank in zip(each, RANKS, strict=True)]).mean()


@pytest.mark.parametrize("name", ["margin", "all_pairs", "plackett_luce", "best_of_k", "regression"])
def test_every_reward_objective_takes_the_plain_gradient_for_any_split(engine: Engine, name: str) -> None:
    objective, params, groups = of_judgements(name)
    model = tiny("reward")
    loss = of_rewards(name, model(**inputs(flat(groups))).logits[:, 0], groups)
    names, weights = zip(*model.named_parameters(), strict=True)
    expected = dict(zip(names, torch.autograd.grad(loss, weights), strict=True))
    batch = collate(groups, 0)
    for micro_tokens in (1, 100, 10**9):
        trained = copy.deepcopy(model)
        optim = Optim(name="sgd", lr=LR, clip=0, micro_tokens=micro_tokens)
        numbers = engine.update(engine.learner(Roles(scorer=trained), optim), batch, objective, params)
        assert numbers["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert_close(moved(model, trained), expected)


@pytest.fixture
def half() -> Iterator[Engine]:
    """The engine on the CPU under bfloat16 autocast."""
    yield Engine(Compute(device="cpu", precision="bfloat16"))
    AcceleratorState._reset_state(reset_partial_state=True)


def test_engines_of_different_precision_follow_each_other(engine: Engine) -> None:
    """accelerate has one state for the whole process, and refuses another precision than the first."""
    other = Engine(Compute(device="cpu", precision="bfloat16"))
    for each, expected in ((engine, torch.float32), (other, torch.bfloat16), (engine, torch.float32)):
        with each.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_bfloat16_is_close_and_keeps_float32_weights(half: Engine) -> None:
    model, groups = tiny("sft"), by_hand("sft")
    loss, expected = plain("sft", model, groups)
    trained = copy.deepcopy(model)
    learner = half.learner(roles("sft", trained), Optim(name="sgd", lr=LR, clip=0))
    numbers = half.update(learner, collate(groups, 0), sft, {})
    assert numbers["loss"] == pytest.approx(loss, rel=2e-2)
    assert numbers["loss"] != pytest.approx(loss, rel=1e-6)  # it did run in bfloat16
    assert {weight.dtype for weight in trained.parameters()} == {torch.float32}
    assert_close(moved(model, trained), expected, bound=0.1)


# ------------------------------------------------------------------------------------------------- one step of a recipe

# Turns of user and assistant. Of a pair, the last two are the chosen and the rejected answer.
CHATS = [
    ["hello there", "hi"],
    ["the cat sat", "on the mat and looked at the dog", "and then?", "it asks a question"],
    ["numbers?", "0 1 2 3 4 5 6 7 8 9, signs too!"],
]
PAIRS = [
    ["hello there", "hi, how can I help you today?", "no"],
    ["a user asks", "the assistant answers", "again?", "yes", "the assistant looked at the dog and sat on the mat"],
    ["numbers?", "1 2 3", "4"],
]
LABELS = [{"prob": 1.0, "weight": 1.0}, {"prob": 0.8, "weight": 0.5}, {"prob": 0.3, "weight": 2.0}]


def spelled(tokenizer: PreTrainedTokenizerBase, turns: Sequence[str], *, only_last: bool) -> Row:
    """A conversation in the default template, written out."""
    row = Row([], [])
    for i in range(0, len(turns), 2):
        asked = tokenizer.encode(("\n" if i else "") + f"User: {turns[i]}\nAssistant:", add_special_tokens=False)
        said = tokenizer.encode(f" {turns[i + 1]}{tokenizer.eos_token}", add_special_tokens=False)
        row.tokens += asked + said
        row.train += [False] * len(asked) + [not only_last or i + 2 == len(turns)] * len(said)
    return row


def written(kind: Kind, tokenizer: PreTrainedTokenizerBase) -> tuple[list[dict[str, object]], list[Group]]:
    """The lines of a data file, and the rows that they should come to."""

    def messages(turns: Sequence[str]) -> list[dict[str, str]]:
        return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]

    if kind == "sft":
        groups = [[spelled(tokenizer, turns, only_last=False)] for turns in CHATS]
        return [{"messages": messages(turns)} for turns in CHATS], groups
    lines: list[dict[str, object]] = []
    groups = []
    if kind == "kto":  # a pair is two ratings; beside each stands its prompt with the same side of the next pair
        for i, (*prompt, chosen, rejected) in enumerate(PAIRS):
            lines.append({"prompt": messages(prompt), "chosen": chosen, "rejected": rejected})
            for said, other, label in zip((chosen, rejected), PAIRS[(i + 1) % 3][-2:], (1.0, 0.0), strict=True):
                both = [spelled(tokenizer, [*prompt, answer], only_last=True) for answer in (said, other)]
                for row in both:
                    row.extra = {"label": label}
                groups.append(both)
        return lines, groups
    for turns, label in zip(PAIRS, LABELS, strict=True):
        *prompt, chosen, rejected = turns
        lines.append({"prompt": messages(prompt), "chosen": chosen, "rejected": rejected, **label})
        groups.append([spelled(tokenizer, [*prompt, answer], only_last=True) for answer in (chosen, rejected)])
        for row in groups[-1]:
            row.extra = dict(label)
    return lines, groups


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("kind", "other"), [("sft", 0), ("reward", 0), ("preference", 0), ("preference", 1), ("kto", 1)]
)
def test_a_step_of_a_recipe_is_the_plain_step(tmp_path: Path, base: Path, kind: Kind, other: int) -> None:
    """With `other`, the reference of a preference stage is not the model that it starts from."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    lines, groups = written(kind, tokenizer)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    optim = {"name": "sgd", "lr": LR, "schedule": "constant", "warmup": 0, "clip": 0, "steps": 1}
    optim |= {
        "batch_size": len(groups),
        "micro_tokens": 200,
    }  # two of the three pairs, in another order, then the third
    stage: dict[str, object] = {"kind": kind, "model": str(base), "data": str(tmp_path / "rows.jsonl"), "optim": optim}
    if kind == "kto":
        stage |= {"kind": "preference", "objective": "kto"}
    if other:
        tiny("sft", seed=9).save_pretrained(tmp_path / "other")
        tokenizer.save_pretrained(tmp_path / "other")
        stage["reference"] = str(tmp_path / "other")
    if kind in REFERENCED:
        stage["params"] = PARAMS[kind]
    table = {"name": "one", "seed": 3, "compute": {"device": "cpu", "precision": "float32"}, "stage": {"it": stage}}
    stages.run(parse(cast(Table, table)), tmp_path / "run")

    opens = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    before, after = opens.from_pretrained(base), opens.from_pretrained(tmp_path / "run" / "it" / "model")
    if kind == "reward":  # a new head, whose values only the seed tells
        before = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        before.score.weight.data.copy_(load_scorer(base, tokenizer, "test", seed=3).score.weight)
    reference = AutoModelForCausalLM.from_pretrained(stage.get("reference", base)) if kind in REFERENCED else None
    loss, expected = plain(kind, before, groups, reference)
    assert_close(moved(before, after), expected)
    logged = json.loads((tmp_path / "run" / "it" / "metrics.jsonl").read_text())
    assert (logged["loss"], logged["lr"]) == pytest.approx((loss, LR), rel=1e-5)
    if kind == "preference":
        logp = plain_logp(before, flat(groups)).detach()
        told = (logged["chosen_logp"], logged["rejected_logp"])
        assert told == pytest.approx((float(logp[0::2].mean()), float(logp[1::2].mean())), rel=1e-5)


# -------------------------------------------------------------------------------------------------------- two processes


WAYS: list[tuple[Kind, bool]] = [(kind, shard) for shard in (False, True) for kind in ("sft", "reward", "preference")]
WAYS += [("kto", False)]


def train(kind: Kind, *, shard: bool = False) -> tuple[list[dict[str, float]], Gradients]:
    """Four steps on ragged rows, the last on a single group: the numbers of every update, and the weights at the end.

    With `shard` every process holds its part of each weight (FSDP2), which accelerate does on GPUs only.
    """
    engine = Engine(Compute(device="cpu", precision="float32"))
    model = tiny(kind)
    both = roles(kind, model)
    optim = Optim(name="sgd", lr=0.5, micro_tokens=1)
    if shard:
        fully_shard(both)
        optimizer = torch.optim.SGD(both.parameters(), lr=0.5)
        for group in optimizer.param_groups:
            group |= {"role": "", "peak": 0.5}
        learner = Learner(both, both, optimizer, optim.clip, optim.micro_tokens, Spikes(0))
    else:
        learner = engine.learner(both, optim)
    groups = [by_hand(kind, seed) for seed in range(4)]
    for row in (row for some in groups for group in some for row in group):
        row.extra["ref_logp"] = [-9.0 if kind == "kto" else -0.5] * len(row)  # a positive baseline
    batches = [*(collate(some, 0) for some in groups[:3]), collate(groups[3][:1], 0)]
    assert all(len(batch.micro(1)) == 7 for batch in batches[:3])  # an odd number: one of two processes gets a spare
    assert len(batches[3].micro(1)) == 1  # and here one has nothing but a spare
    numbers = [
        engine.update(learner, completed(kind, engine, learner, batch), OBJECTIVES[kind], {}) for batch in batches
    ]
    return numbers, {name: whole(weight) for name, weight in model.named_parameters()}


def whole(weight: Tensor) -> Tensor:
    """A weight of which this process may hold a part only."""
    return (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().clone()


@pytest.mark.usefixtures("engine")
def test_two_processes_take_the_same_steps_as_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo", "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1]),
    }  # fmt: skip
    children: list[subprocess.Popen[bytes]] = []
    for rank in ("0", "1"):
        with (tmp_path / f"{rank}.log").open("wb") as log:
            environment = {**os.environ, **world, "RANK": rank, "LOCAL_RANK": rank}
            command = [sys.executable, __file__, str(tmp_path / f"{rank}.pt")]
            children.append(subprocess.Popen(command, env=environment, stderr=log))
    try:
        for rank, child in enumerate(children):
            assert child.wait(timeout=120) == 0, (tmp_path / f"{rank}.log").read_text()
    finally:
        for child in children:
            child.kill()
            child.wait()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for kind, shard in WAYS:
        numbers, weights = train(kind)
        ours, theirs = first[kind, shard], second[kind, shard]
        assert_close(ours[1], weights, bound=1e-6)
        assert all(torch.equal(weight, theirs[1][name]) for name, weight in ours[1].items())
        assert ours[0] == theirs[0] == [pytest.approx(step, rel=1e-6, abs=1e-6) for step in numbers]


if __name__ == "__main__":  # one of the two processes
    torch.save({(kind, shard): train(kind, shard=shard) for kind, shard in WAYS}, sys.argv[1])
    torch.distributed.destroy_process_group()
