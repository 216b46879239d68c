"""Objectives, advantages and token outputs against their definitions, written out in numpy and plain Python."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import pytest
import torch
from conftest import tiny_llama
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from accord.data.batch import Batch, Row, Unit, collate
from accord.engine import Engine
from accord.objectives import Loss, Objective
from accord.objectives.advantage import gae, token_rewards, whiten
from accord.objectives.policy import ppo
from accord.objectives.preference import dpo
from accord.objectives.reward import bradley_terry
from accord.outputs import Outputs, Roles, scorer_outputs, token_kl, token_outputs
from accord.recipe import Optim

Array: TypeAlias = NDArray[np.float64]


# ----------------------------------------------------------------------------------------------------------- advantages

SPANS = [(3, 11), (1, 2), (5, 9), (0, 0), (2, 12), (11, 12)]  # of the train tokens in each row; one row has none


@pytest.fixture
def train() -> Tensor:
    """A mask of ragged answers, [6, 12]."""
    mask = torch.zeros(len(SPANS), 12, dtype=torch.bool)
    for row, (start, end) in enumerate(SPANS):
        mask[row, start:end] = True
    return mask


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sums_of(loss: Loss, *units: Unit) -> dict[str, float]:
    """All sums of a loss, which are to be averaged over these units."""
    sums = {name: (value, of) for name, (value, of, _) in loss.terms.items()} | loss.metrics
    assert {of for _, of in sums.values()} == set(units)
    return {name: value.item() for name, (value, _) in sums.items()}


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (1.0, 1.0), (0.9, 0.5), (0.99, 0.0), (0.0, 0.9)])
def test_gae_is_the_double_sum(train: Tensor, gamma: float, lam: float) -> None:
    reward, value = noise(6, 12, seed=0), noise(6, 12, seed=1)  # also outside the answers, where it must not matter
    r, v = reward.numpy(), value.numpy()
    expected = np.zeros((6, 12))
    for row, (start, end) in enumerate(SPANS):
        for t in range(start, end):
            for s in range(t, end):
                after = v[row, s + 1] if s + 1 < end else 0.0
                expected[row, t] += (gamma * lam) ** (s - t) * (r[row, s] + gamma * after - v[row, s])
    found = gae(reward, value, train, gamma=gamma, lam=lam)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)
    single = gae(reward.float(), value.float(), train, gamma=gamma, lam=lam)
    np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=1e-5)


def test_token_rewards_are_penalties_and_a_score_at_the_end(train: Tensor) -> None:
    score, logp, ref_logp = noise(6, seed=2), noise(6, 12, seed=3), noise(6, 12, seed=4)
    expected = np.zeros((6, 12))
    for row, (start, end) in enumerate(SPANS):
        for t in range(start, end):
            expected[row, t] = -0.3 * (float(logp[row, t]) - float(ref_logp[row, t]))
        if end > start:
            expected[row, end - 1] += float(score[row])
    found = token_rewards(score, logp, ref_logp, train, kl=0.3)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-14)


def test_whitening_uses_the_variance_of_the_population(train: Tensor) -> None:
    values = 3 + 2 * noise(6, 12, seed=5)
    kept = values.numpy()[train.numpy()]
    expected = np.zeros((6, 12))
    expected[train.numpy()] = (kept - kept.mean()) / np.sqrt(((kept - kept.mean()) ** 2).mean() + 1e-8)
    np.testing.assert_allclose(whiten(values, train).numpy(), expected, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------------ ppo


def ppo_by_hand(
    columns: dict[str, Array], *, clip: float, value_coef: float, value_clip: float, policy_coef: float
) -> tuple[dict[str, float], Array, Array]:
    """The sums over tokens, and the gradients of the whole loss by log-prob and by value."""
    names = (
        "policy/loss",
        "value/loss",
        "policy/clip_fraction",
        "value/clip_fraction",
        "policy/approx_kl",
        "policy/entropy",
    )
    sums = dict.fromkeys(names, 0.0)
    by_logp, by_value = np.zeros((6, 12)), np.zeros((6, 12))
    for row, (start, end) in enumerate(SPANS):
        for t in range(start, end):
            at = {name: float(column[row, t]) for name, column in columns.items()}
            log_ratio = at["logp"] - at["old_logp"]
            ratio = math.exp(log_ratio)
            inside = min(max(ratio, 1 - clip), 1 + clip)
            sums["policy/loss"] -= min(at["advantage"] * ratio, at["advantage"] * inside)
            blocked = (at["advantage"] > 0 and ratio > 1 + clip) or (at["advantage"] < 0 and ratio < 1 - clip)
            by_logp[row, t] = 0.0 if blocked else -policy_coef * at["advantage"] * ratio
            value = float(columns["value"][row, t])
            far = (value - at["return"]) ** 2
            slope = value - at["return"]
            if 0 < value_clip < abs(value - at["old_value"]):
                near = at["old_value"] + math.copysign(value_clip, value - at["old_value"])
                if (near - at["return"]) ** 2 > far:
                    sums["value/clip_fraction"] += 1
                    far, slope = (near - at["return"]) ** 2, 0.0
            sums["value/loss"] += far / 2
            by_value[row, t] = value_coef * slope
            sums["policy/clip_fraction"] += abs(ratio - 1) > clip
            sums["policy/approx_kl"] += ratio - 1 - log_ratio
            sums["policy/entropy"] += at["entropy"]
    return sums, by_logp, by_value


@pytest.mark.parametrize("policy_coef", [1.0, 0.0])
@pytest.mark.parametrize(("clip", "value_clip"), [(0.2, 0.2), (0.1, 0.0), (0.5, 0.7)])
def test_ppo_is_the_plain_loop(train: Tensor, clip: float, value_clip: float, policy_coef: float) -> None:
    keep = train.double()
    columns = {name: noise(6, 12, seed=seed) for seed, name in enumerate(("advantage", "old_value", "return"), 10)}
    columns["value"] = noise(6, 12, seed=14)
    columns["old_logp"] = (noise(6, 12, seed=15) - 2) * keep
    columns["logp"] = (columns["old_logp"] + 0.4 * noise(6, 12, seed=16)) * keep
    columns["entropy"] = noise(6, 12, seed=17).abs() * keep
    columns["valued"] = keep
    settings = {"clip": clip, "value_coef": 0.3, "value_clip": value_clip, "policy_coef": policy_coef}
    sums, by_logp, by_value = ppo_by_hand({name: x.numpy().copy() for name, x in columns.items()}, **settings)
    assert 0 < sums["policy/clip_fraction"] < train.sum()
    assert (by_logp == 0)[train].any() or policy_coef == 0

    logp, value = columns["logp"].requires_grad_(), columns["value"].requires_grad_()
    batch = Batch(torch.ones(6, 12).long(), torch.ones(6, 12).bool(), train, torch.arange(6), columns)
    loss = ppo(Outputs({"logp": logp, "entropy": columns["entropy"], "value": value}), batch, **settings)
    assert sums_of(loss, "token", "value") == pytest.approx(sums, rel=1e-6)
    ratio = (columns["logp"] - columns["old_logp"]).detach().exp()[train]
    assert loss.extremes == {"policy/ratio_max": ratio.max(), "policy/ratio_min": ratio.min()}
    sum(weight * value for value, _, weight in loss.terms.values()).backward()
    np.testing.assert_allclose(logp.grad.numpy(), by_logp, rtol=0, atol=1e-6)
    np.testing.assert_allclose(value.grad.numpy(), by_value, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- pairs


def ragged(lengths: list[int], *, seed: int = 0) -> list[Row]:
    """Random tokens, never the pad token 0; the second half of a row is the answer."""
    draw = np.random.default_rng(seed)
    return [Row(draw.integers(1, 320, n).tolist(), [i >= n // 2 for i in range(n)]) for n in lengths]


def pair_batch(probs: list[float], weights: list[float]) -> Batch:
    """Pairs of ragged rows."""
    rows = ragged([5, 9, 12, 3, 7, 7, 4, 12, 10, 2])
    for i, row in enumerate(rows):
        row.extra = {"prob": probs[i // 2], "weight": weights[i // 2]}
        row.extra["ref_logp"] = [-2.0 * i / sum(row.train) if train else 0.0 for train in row.train]
    return collate([rows[i : i + 2] for i in range(0, len(rows), 2)], 0)


def pair_loss(margin: Array, probs: Array, weights: Array) -> float:
    return float((weights * (probs * np.log1p(np.exp(-margin)) + (1 - probs) * np.log1p(np.exp(margin)))).sum())


@pytest.mark.parametrize("soft", [False, True])
def test_pair_losses_are_their_formulas(soft: bool) -> None:
    probs, weights = ([0.9, 0.5, 0.0, 1.0, 0.3], [2.0, 0.5, 1.0, 0.0, 3.0]) if soft else ([1.0] * 5, [1.0] * 5)
    batch = pair_batch(probs, weights)
    width = batch.tokens.shape[1]
    score = noise(10, 1, seed=20)
    reward = score.numpy()[:, 0]
    margin = reward[0::2] - reward[1::2]
    loss = bradley_terry(Outputs({"reward": score}), batch)
    sums = {"bradley_terry": pair_loss(margin, np.array(probs), np.array(weights))}
    sums |= {"accuracy": (margin > 0).sum(), "margin": margin.sum()}
    assert sums_of(loss, "pair") == pytest.approx(sums, rel=1e-6)

    logp = (noise(10, width, seed=21) - 3) * batch.train
    whole = logp.numpy().sum(1)
    gain = whole - np.array([-2.0 * i for i in range(10)])
    margin = 0.2 * (gain[0::2] - gain[1::2])
    loss = dpo(Outputs({"logp": logp}), batch, beta=0.2)
    sums = {"dpo": pair_loss(margin, np.array(probs), np.array(weights))}
    sums |= {"accuracy": (margin > 0).sum(), "margin": margin.sum()}
    sums |= {"chosen_logp": whole[0::2].sum(), "rejected_logp": whole[1::2].sum()}
    assert sums_of(loss, "pair") == pytest.approx(sums, rel=1e-6)

    both = dpo(Outputs({"logp": logp}), batch, beta=0.2, sft=0.3)  # with the better answers' own loss per token
    per_token = -whole / batch.train.numpy().sum(1)
    better = np.array(probs) * per_token[0::2] + (1 - np.array(probs)) * per_token[1::2]
    assert sums_of(both, "pair") == pytest.approx({**sums, "sft": (better * weights).sum()}, rel=1e-6)
    assert both.terms["sft"][2] == 0.3


@pytest.mark.parametrize("objective", [bradley_terry, dpo], ids=["bradley_terry", "dpo"])
@pytest.mark.parametrize(("prob", "sign"), [(1.0, 1), (0.0, -1)])
def test_a_step_raises_what_is_preferred(engine: Engine, objective: Objective, prob: float, sign: int) -> None:
    batch = pair_batch([prob] * 5, [1.0] * 5)
    scorer = objective is bradley_terry
    model = scorer_of(tiny_llama().config) if scorer else tiny_llama()
    roles = Roles(scorer=model) if scorer else Roles(policy=model)

    def margin() -> Tensor:
        with torch.no_grad():
            values = roles(batch, ["reward"])["reward"][:, 0] if scorer else answer_logp(model, batch)
        return values[0::2] - values[1::2]

    before = margin()
    engine.update(engine.learner(roles, Optim(name="sgd", lr=1e-3, clip=0)), batch, objective, {})
    assert (sign * (margin() - before)).sum() > 0


def answer_logp(model: PreTrainedModel, batch: Batch) -> Tensor:
    return token_outputs(model, batch)["logp"].sum(1)


# --------------------------------------------------------------------------------------------------------- architectures

GPT2 = GPT2Config(vocab_size=320, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)
QWEN2 = Qwen2Config(
    vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=1,
)  # fmt: skip
CONFIGS = {"llama": tiny_llama().config, "gpt2": GPT2, "qwen2": QWEN2}
architectures = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def scorer_of(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(1)
    one = type(config)(**{**config.to_dict(), "num_labels": 1, "pad_token_id": 0})
    return sharp(AutoModelForSequenceClassification.from_config(one))


def policy_of(config: PretrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return sharp(AutoModelForCausalLM.from_config(config))


def sharp(model: PreTrainedModel) -> PreTrainedModel:
    """With enlarged weights, so that attention looks at some tokens more than at others."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5 if weight.dim() == 2 else 1)
    return model.eval()


def left(rows: list[Row]) -> Batch:
    """Rows padded on the left."""
    width = max(map(len, rows))
    gaps = [width - len(row) for row in rows]
    columns = [
        [[0] * gap + row.tokens for gap, row in zip(gaps, rows, strict=True)],
        [[False] * gap + [True] * len(row) for gap, row in zip(gaps, rows, strict=True)],
        [[False] * gap + row.train for gap, row in zip(gaps, rows, strict=True)],
    ]
    return Batch(*map(torch.tensor, columns), group=torch.arange(len(rows)))


@architectures
def test_padding_changes_nothing(config: PretrainedConfig) -> None:
    """Every row alone in plain transformers, and together in accord with padding on either side."""
    rows = ragged([9, 23, 2, 14, 23])
    policy, other, scorer = policy_of(config), policy_of(config, seed=3), scorer_of(config)
    right_batch, left_batch = collate([[row] for row in rows], 0), left(rows)
    assert left_batch.left_padded
    for batch in (right_batch, left_batch):
        batch.temperature = 0.7
        with torch.no_grad():
            out = token_outputs(policy, batch) | {"kl": token_kl(policy, other, batch)}
            out |= scorer_outputs(scorer, batch, ["score"])
            rewards = Roles(scorer=scorer)(batch, ["reward"])["reward"][:, 0]
        for i, row in enumerate(rows):
            alone = torch.tensor([row.tokens])
            here, answer = batch.attend[i], torch.tensor(row.train)
            with torch.no_grad():
                dist, theirs = (torch.log_softmax(m(alone).logits[0, :-1] / 0.7, -1) for m in (policy, other))
                pooled = scorer(alone).logits[0, 0]
                scores = scorer.score(getattr(scorer, scorer.base_model_prefix)(alone).last_hidden_state)[0, :, 0]
            expected = {
                "logp": dist.gather(1, alone[0, 1:, None])[:, 0],
                "entropy": -(dist.exp() * dist).sum(1),
                "kl": (dist.exp() * (dist - theirs)).sum(1),
            }
            for name, values in expected.items():
                torch.testing.assert_close(out[name][i][here][answer], values[answer[1:]], rtol=0, atol=1e-5)
                assert not out[name][i][~batch.train[i]].any()
            torch.testing.assert_close(out["score"][i][here], scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(rewards[i], pooled, rtol=0, atol=1e-5)
    mask = right_batch.attend.long()
    with torch.no_grad():
        together = scorer(input_ids=right_batch.tokens, attention_mask=mask).logits[:, 0]
    torch.testing.assert_close(rewards, together, rtol=0, atol=1e-5)
