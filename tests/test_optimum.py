"""The exact optimum, on a problem small enough to be written out: three tokens of an alphabet of three, one prompt.

A table of logits is the policy, so the KL-regularised optimum is known: pi*(y) is proportional to pi_ref(y) exp(r(y) / beta).
The objectives see nothing but samples, columns and outputs, as in a stage; advantages come from the stage's own `assign`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from accord.data.batch import Batch
from accord.objectives import Objective
from accord.objectives.kl import best_of_n
from accord.objectives.policy import OBJECTIVES
from accord.objectives.preference import dpo
from accord.outputs import Outputs
from accord.recipe import GrpoParams, PolicyParams, PpoParams, ReinforceParams, RlooParams
from accord.stages.credit import assign
from accord.stages.policy import steered

V, T = 3, 3
ANSWERS = torch.tensor(list(itertools.product(range(V), repeat=T)))  # [27, T]
DRAW = torch.Generator().manual_seed(1)
REFERENCE = torch.randn(1 + V + V**2, V, generator=DRAW, dtype=torch.float64)  # logits after each beginning
REWARD = torch.randn(V**T, generator=DRAW, dtype=torch.float64)  # [27]


def places(answers: Tensor) -> Tensor:
    """The row of the table that stands before each token, [B, T]: beginnings by length, then by their tokens."""
    starts = [torch.zeros(len(answers), dtype=torch.long)]
    starts += [1 + answers[:, 0], 1 + V + answers[:, 0] * V + answers[:, 1]]
    return torch.stack(starts, 1)


def number(answers: Tensor) -> Tensor:
    """Where answers stand in ANSWERS, [B]."""
    return (answers * torch.tensor([V**2, V, 1])).sum(1)


def logp_of(table: Tensor, answers: Tensor) -> Tensor:
    """Log-probability of each token, [B, T]."""
    return torch.log_softmax(table, 1)[places(answers)].gather(2, answers[..., None])[..., 0]


def probabilities(table: Tensor) -> Tensor:
    """Of all answers, [27]."""
    return logp_of(table, ANSWERS).sum(1).exp()


def optimum(beta: float, reward: Tensor = REWARD) -> Tensor:
    """pi*, [27] (Rafailov et al. 2023, eq. 4)."""
    return torch.softmax(probabilities(REFERENCE).log() + reward / beta, 0)


def divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q), in nats."""
    return float((p * (p / q).log()).sum())


def worth(p: Tensor, beta: float) -> float:
    """J(p): expected reward less beta times KL(p || pi_ref)."""
    return float((p * REWARD).sum()) - beta * divergence(p, probabilities(REFERENCE))


def framed(values: Tensor) -> Tensor:
    """Columns with the prompt's one token in front, [B, 1 + T]."""
    return torch.cat([torch.zeros_like(values[:, :1]), values], 1)


def optimise(
    objective: Objective, params: PolicyParams, *, group: int, groups: int = 128, steps: int = 300, lr: float = 0.1,
    seen: list[float] | None = None,
) -> Tensor:  # fmt: skip
    """Train a table from the reference; returns its probabilities, [27]. The rate falls to 0 in equal steps.

    `seen` collects the KL of every batch, in nats.
    """
    table = REFERENCE.clone().requires_grad_()
    values = torch.zeros(len(REFERENCE), dtype=torch.float64, requires_grad=True)
    beta = params.kl
    optimizer = torch.optim.Adam([{"params": [table]}, {"params": [values]}], lr=lr)
    draw = torch.Generator().manual_seed(7)
    owner = torch.arange(groups).repeat_interleave(group)
    for step in range(steps):
        with torch.no_grad():
            chosen = torch.multinomial(probabilities(table), group * groups, replacement=True, generator=draw)
            answers = ANSWERS[chosen]
        train = framed(torch.ones_like(answers)).bool()
        at = places(answers)  # [B, T]

        def outputs(answers: Tensor = answers, at: Tensor = at) -> Outputs:
            logp = framed(logp_of(table, answers))
            return Outputs({"logp": logp, "entropy": torch.zeros_like(logp), "value": framed(values[at])})

        with torch.no_grad():
            out = outputs()
            columns = {
                "old_logp": out.logp,
                "ref_logp": framed(logp_of(REFERENCE, answers)),
                "valued": train.double(),
                "old_value": out.value * train,
            }
            batch = Batch(framed(answers), torch.ones_like(train), train, torch.arange(len(answers)), columns)
            batch.extra |= assign(batch, REWARD[chosen], owner, params, beta=beta)
            kl = float((columns["old_logp"] - columns["ref_logp"]).sum(1).mean())
        in_loss = {"kl": beta} if params.kl_in == "loss" else {}
        settings = {"kl_estimator": params.kl_estimator, "kl_level": params.kl_level, **in_loss}
        settings |= {"length": params.length, "max_new_tokens": T} if isinstance(params, GrpoParams) else {}
        settings |= {"value_coef": 1.0, "value_clip": 0.0} if isinstance(params, PpoParams) else {}
        if seen is not None:
            seen.append(kl)
        beta = steered(beta, kl, params, rollouts=len(answers), done=(step + 1) / steps)
        for part in optimizer.param_groups:
            part["lr"] = lr * (1 - step / steps)
        for _ in range(params.epochs):
            loss = objective(outputs(), batch, **settings)
            counts = batch.counts()
            optimizer.zero_grad()
            torch.stack([weight * total / counts[unit] for total, unit, weight in loss.terms.values()]).sum().backward()
            optimizer.step()
    return probabilities(table.detach())


BETAS = (0.2, 0.5, 1.5)
EXACT: dict[str, Callable[[float], PolicyParams]] = {
    "ppo": lambda beta: PpoParams(kl=beta, whiten=False, epochs=2),
    "rloo": lambda beta: RlooParams(kl=beta),
    "reinforce": lambda beta: ReinforceParams(kl=beta),
    "grpo": lambda beta: GrpoParams(
        kl=beta, std=False, length="constant", kl_estimator="k2", kl_level="answer", kl_in="loss"
    ),
}


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", EXACT)
def test_the_optimum_is_reached(name: str, beta: float) -> None:
    group = (
        64 if name == "grpo" else 4
    )  # GRPO compares to a mean that holds the answer itself: 1 - 1 / K of the advantage
    found = optimise(OBJECTIVES[name], EXACT[name](beta), group=group, groups=2048 // group)
    best, start = optimum(beta), probabilities(REFERENCE)
    gap = (worth(best, beta) - worth(found, beta)) / (worth(best, beta) - worth(start, beta))
    assert divergence(best, found) < 0.02
    assert gap < 0.01


@pytest.mark.parametrize(
    ("target", "how"),
    [
        (0.5, {"kl_control": "adaptive", "kl_horizon": 5120}),
        (1.0, {"kl_control": "adaptive", "kl_horizon": 5120}),
        (0.5, {"kl_control": "constraint", "kl_rate": 0.2}),
    ],
)
def test_the_kl_holds_its_target(target: float, how: dict[str, object]) -> None:
    """Over the last third of 150 updates within 10 %, with a horizon of ten updates; no weight is right from the start."""
    seen: list[float] = []
    params = PpoParams.model_validate({"kl": 0.3, "kl_target": target, "whiten": False, **how})
    optimise(OBJECTIVES["ppo"], params, group=1, groups=512, steps=150, lr=0.1, seen=seen)
    assert np.mean(seen[-50:]) == pytest.approx(target, rel=0.1)


# ------------------------------------------------------------------------- fixed points of their own (docs/methods/kl.md)


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0, by bisection."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return low


def test_the_mean_that_holds_the_answer_itself_makes_beta_larger() -> None:
    """GRPO's mean over K answers shrinks advantages to 1 - 1 / K of their size: at K = 2 beta counts double."""
    found = optimise(OBJECTIVES["grpo"], EXACT["grpo"](0.5), group=2, groups=1024)
    assert divergence(optimum(1.0), found) < 0.005 < divergence(optimum(0.5), found)


def test_in_the_reward_the_mean_shrinks_both() -> None:
    """A KL that is part of the reward is part of what shrinks: K does not matter."""
    params = EXACT["grpo"](0.5).model_copy(update={"kl_in": "reward", "kl_estimator": "k1"})
    found = optimise(OBJECTIVES["grpo"], params, group=2, groups=1024)
    assert divergence(optimum(0.5), found) < 0.005


@pytest.mark.parametrize("level", ["token", "answer"])
def test_k1_in_the_loss_holds_nothing(level: str) -> None:
    """The gradient of log pi is 0 on average: it ends where no KL at all ends."""
    params = EXACT["grpo"](0.5).model_copy(update={"kl_estimator": "k1", "kl_level": level})
    found, free = (optimise(OBJECTIVES["grpo"], each, group=64, groups=32)
                   for each in (params, params.model_copy(update={"kl": 0.0})))  # fmt: skip
    assert divergence(free, found) < 1e-3
    assert found.max() > 0.99 > 0.9 > optimum(0.5).max()


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_k2_and_k3_in_the_reward_collapse(estimator: str) -> None:
    """A rarer answer pays as a commoner one does, becomes rarer still, and pays more."""
    found = optimise(OBJECTIVES["rloo"], RlooParams(kl=0.5, kl_estimator=estimator), group=64, groups=32)
    assert found.max() > 0.99 > 0.9 > optimum(0.5).max()


def test_k3_in_the_loss_goes_elsewhere() -> None:
    """Its gradient is that of KL(pi_ref || pi): pi(y) = beta pi_ref(y) / (c - r(y)), c such that they add up to 1."""
    beta, reference = 0.5, probabilities(REFERENCE)
    params = EXACT["grpo"](beta).model_copy(update={"kl_estimator": "k3"})
    found = optimise(OBJECTIVES["grpo"], params, group=64, groups=32)
    top = float(REWARD.max())
    c = root(lambda c: float((beta * reference / (c - REWARD)).sum()) - 1, top + 1e-9, top + 100)
    assert divergence(beta * reference / (c - REWARD), found) < 0.005
    assert divergence(optimum(beta), found) > 0.05


def test_grpo_with_std_has_a_beta_of_its_own() -> None:
    """Rewards in units of their deviation s under the policy: pi is proportional to pi_ref exp(r / (beta s)).

    The surer the policy, the smaller s, the weaker the KL: where beta is small nothing holds it any more.
    """
    params = EXACT["grpo"](1.5).model_copy(update={"std": True})
    found = optimise(OBJECTIVES["grpo"], params, group=64, groups=32)
    own, p = 0.0, probabilities(REFERENCE)
    for _ in range(100):
        own = float(((p * REWARD**2).sum() - (p * REWARD).sum() ** 2).sqrt())
        p = optimum(1.5 * own)
    assert divergence(p, found) < 0.002
    assert divergence(optimum(1.5), found) > 0.01
    loose = optimise(OBJECTIVES["grpo"], params.model_copy(update={"kl": 0.5}), group=64, groups=32)
    assert loose.max() > 0.99 > 0.9 > optimum(0.5).max()


def test_k2_of_single_tokens_leaves_out_the_tokens_after() -> None:
    """Each token pays for its own step only: pi(a | s) is proportional to pi_ref exp(Q / beta), Q the policy's mean reward."""
    beta = 0.5
    params = EXACT["grpo"](beta).model_copy(update={"kl_level": "token"})
    found = optimise(OBJECTIVES["grpo"], params, group=64, groups=32)
    table = torch.log_softmax(REFERENCE, 1).clone()
    value = REWARD.reshape(V, V, V)
    for depth in (2, 1, 0):  # from the last token to the first
        rows = slice((V**depth - 1) // (V - 1), (V ** (depth + 1) - 1) // (V - 1))
        table[rows] += value.reshape(-1, V) / beta
        value = (torch.softmax(table[rows], 1) * value.reshape(-1, V)).sum(1)
    assert divergence(probabilities(table), found) < 0.005
    assert divergence(optimum(beta), found) > 0.01


# ------------------------------------------------------------------------------------------------ pairs, and best of n


def fit_dpo(first: Tensor, second: Tensor, prob: Tensor, weight: Tensor, beta: float) -> Tensor:
    """DPO on pairs of answers by their numbers, [P], with P(first is better); the probabilities it ends with, [27]."""
    answers = ANSWERS[torch.stack([first, second], 1).flatten()]
    train = framed(torch.ones_like(answers)).bool()
    extra = {"prob": prob.repeat_interleave(2), "weight": weight.repeat_interleave(2)}
    extra["ref_logp"] = framed(logp_of(REFERENCE, answers))
    batch = Batch(framed(answers), torch.ones_like(train), train, torch.arange(len(prob)).repeat_interleave(2), extra)
    table = REFERENCE.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([table], lr=1, max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = dpo(Outputs({"logp": framed(logp_of(table, answers))}), batch, beta=beta).terms["dpo"][0] / weight.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return probabilities(table.detach())


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_with_soft_labels_on_all_pairs_reaches_the_optimum(beta: float) -> None:
    first, second = torch.triu_indices(V**T, V**T, 1)
    prob = torch.sigmoid(REWARD[first] - REWARD[second])
    found = fit_dpo(first, second, prob, torch.ones_like(prob), beta)
    assert divergence(optimum(beta), found) < 1e-4
    best, start = worth(optimum(beta), beta), worth(probabilities(REFERENCE), beta)
    assert (best - worth(found, beta)) / (best - start) < 1e-3


def dpo_error(pairs: int, *, beta: float = 1.0, repeats: int = 10) -> float:
    """KL(pi* || pi) after so many pairs sampled from the reference and labelled once each, a mean over draws."""
    draw, errors = torch.Generator().manual_seed(3), []
    for _ in range(repeats):
        first, second = torch.multinomial(probabilities(REFERENCE), 2 * pairs, replacement=True, generator=draw).chunk(
            2
        )
        right = torch.rand(pairs, generator=draw) < torch.sigmoid(REWARD[first] - REWARD[second])
        labelled = torch.stack([torch.where(right, first, second), torch.where(right, second, first)])
        (chosen, rejected), times = labelled.unique(dim=1, return_counts=True)
        found = fit_dpo(chosen, rejected, torch.ones(len(times)).double(), times.double(), beta)
        errors.append(divergence(optimum(beta), found))
    return float(np.mean(errors))


def test_dpo_errs_less_with_more_pairs() -> None:
    """As a maximum-likelihood estimate does, in proportion to 1 / N where there is enough data."""
    few, many = dpo_error(10_000), dpo_error(160_000)
    assert many < 0.002
    assert 8 < few / many < 32


@pytest.mark.parametrize("n", [1, 2, 4, 16, 64])
def test_best_of_n_is_its_formula(n: int) -> None:
    """pi_n(y) = F(y)^n - F(y-)^n, F the distribution of rewards under the reference; no further away than log n - (n-1)/n."""
    reference = probabilities(REFERENCE)
    ranked = REWARD.argsort()
    below = torch.cat([torch.zeros(1), reference[ranked].cumsum(0)]).double().clamp(max=1)
    exact = torch.empty_like(reference)
    exact[ranked] = below[1:] ** n - below[:-1] ** n
    assert divergence(exact, reference) <= best_of_n(n) + 1e-12
    pools = torch.multinomial(reference, 40_000 * n, replacement=True, generator=torch.Generator().manual_seed(5)).view(
        -1, n
    )
    kept = pools.gather(1, REWARD[pools].argmax(1, keepdim=True))[:, 0]
    share = torch.bincount(kept, minlength=V**T) / len(kept)
    assert float((share - exact).abs().max()) < 4 * math.sqrt(0.25 / len(kept))
