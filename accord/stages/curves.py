"""What a reward does to answers as it is optimised: kept checkpoints of a policy stage, and best-of-n, over KL.

`proxy` is the reward that was optimised, `gold` whatever the suite judges by (Gao et al. 2022,
https://arxiv.org/abs/2210.10760). Leaves curves.json for the report to draw.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.console import Progress as Line
from accord.data.prepare import Asked
from accord.data.records import bucket
from accord.data.tokenizer import load_tokenizer, pad_id, stop_ids
from accord.estimate import Estimate, mean
from accord.model import load_policy
from accord.objectives.kl import best_of_n as kl_of_best
from accord.recipe import Evaluate, Policy
from accord.run import write_json
from accord.sampler import Rollout, as_batch, asks_of
from accord.sampler.local import LocalSampler
from accord.score import Scorer
from accord.stages.actors import open_rewards
from accord.stages.fit import Context
from accord.suites import Suite


def trace(context: Context, stage: Evaluate, asked: Sequence[Asked], suites: Sequence[Suite]) -> None:
    """Every series of `stage.curves`, with best-of-n beside each where `stage.best_of` asks for it."""
    truth = next((suite.scorers["gold"] for suite in suites if "gold" in suite.scorers), None)
    series: list[dict[str, object]] = []
    pools: dict[str, list[Rollout]] = {}  # curves that start from the same model choose from the same answers
    line = Line(f"{context.name} curves", len(stage.curves))
    for done, (name, curve) in enumerate(stage.curves.items(), 1):
        folder = context.run.stage(curve[1:])
        policy = cast(Policy, context.run.recipe.stage[folder.name])
        start = context.path(policy.reference or policy.model)
        tokenizer = load_tokenizer(start, context.where)
        proxy = open_rewards(context, policy.rewards, tokenizer, stage.micro_tokens)
        paths = sorted((folder.path / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
        reference = context.engine.place(load_policy(start, tokenizer, context.where))
        points = [point(context, stage, path, reference, tokenizer, asked, proxy, truth) for path in paths]
        series.append({"name": name, "kind": "rl", "points": points})
        if stage.best_of:
            if start not in pools:
                pools[start] = sampled(context, stage, reference, start, tokenizer, asked, stage.best_of)
            points = best_of(pools[start], asked, proxy, truth)
            series.append({"name": f"best of n, {name}", "kind": "best_of_n", "points": points})
        line.step(done, {})
    write_json(context.folder.path / "curves.json", {"series": series})


def point(
    context: Context, stage: Evaluate, path: Path, reference: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Asked], proxy: Scorer, truth: Scorer | None,
) -> dict[str, object]:  # fmt: skip
    """One checkpoint: KL from the reference, proxy and gold of an answer to each prompt."""
    policy = context.engine.place(load_policy(path, tokenizer, context.where))
    rollouts = sampled(context, stage, policy, str(path), tokenizer, asked, 1)
    batch = as_batch(rollouts, pad_id(tokenizer), temperature=1.0)
    kl = context.engine.kl(policy, reference, batch, micro_tokens=stage.micro_tokens).sum(1)
    found: dict[str, object] = {"step": int(path.name), "kl": max(float(kl.mean()), 0.0)}
    for label, scorer in (("proxy", proxy), ("gold", truth)):
        value = mean([score.value for score in scorer(rollouts)], _clusters(asked)) if scorer else None
        found |= {label: value.to_json()} if value else {}
    return found


def best_of(
    rollouts: Sequence[Rollout], asked: Sequence[Asked], proxy: Scorer, truth: Scorer | None
) -> list[dict[str, object]]:
    """Best-of-n for n = 1, 2, 4, ... from one pool with the same number of answers to each prompt.

    KL is the bound of `accord.objectives.kl.best_of_n`.
    """
    pool = len(rollouts) // len(asked)
    columns = {"proxy": proxy} | ({"gold": truth} if truth else {})
    values = {
        label: np.array([score.value for score in scorer(rollouts)]).reshape(len(asked), pool)
        for label, scorer in columns.items()
    }
    order = values["proxy"].argsort(1)
    points: list[dict[str, object]] = []
    for n in [2**i for i in range(int(math.log2(pool)) + 1)]:
        weights = best_weights(pool, n)
        found: dict[str, object] = {"n": n, "kl": kl_of_best(n)}
        for label, of in values.items():
            value = mean((np.take_along_axis(of, order, 1) @ weights).tolist(), _clusters(asked))
            found |= {label: cast(Estimate, value).to_json()}
        points.append(found)
    return points


def best_weights(pool: int, n: int) -> np.ndarray:
    """The chance of each place, worst first, to be the best of n drawn from `pool` without replacement, [pool].

    The unbiased estimator of best-of-n (Nakano et al. 2021, appendix I, https://arxiv.org/abs/2112.09332).
    """
    return np.array([math.comb(place, n - 1) / math.comb(pool, n) for place in range(pool)])


def sampled(
    context: Context, stage: Evaluate, policy: PreTrainedModel, path: str, tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Asked], count: int,
) -> list[Rollout]:  # fmt: skip
    """`count` answers of the model at `path` to each prompt, those of one prompt next to each other."""
    asks = asks_of(asked, each=count)
    sampler = LocalSampler(policy, tokenizer, stop_ids(tokenizer, path))
    return context.engine.generate(
        sampler, asks, max_new_tokens=stage.sampling.max_new_tokens, temperature=1.0, seed=context.seed + 3
    )


def _clusters(asked: Sequence[Asked]) -> list[Hashable]:
    return [bucket(a.record, 2**60) for a in asked]
