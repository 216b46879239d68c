"""PPO of TRL 1.12, the last that has it: two updates on the same answers leave the same weights.

Its trainer samples and updates; what it sampled is then learned from by accord, with TRL's choices as options: the score one
place after the end token, whitening with the sample's variance.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from conftest import scorer, tiny_llama
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from accord.engine import Engine
from accord.objectives.policy import ppo
from accord.outputs import Roles
from accord.recipe import Optim, PpoParams, RolloutParams
from accord.sampler import Rollout
from accord.score import Score
from accord.stages.actors import Actors
from accord.stages.credit import Moments, credit

PROMPT, ANSWER, LR = 5, 8, 0.1


@pytest.mark.filterwarnings("ignore")  # of TRL and transformers, about each other
def test_trl_has_the_same_ppo(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    module = pytest.importorskip("trl.experimental.ppo.ppo_trainer", reason="TRL before 1.13 is not installed")
    datasets = pytest.importorskip("datasets")
    torch.manual_seed(0)
    policy, value, reward = tiny_llama(seed=0), scorer(1), scorer(2)
    with torch.no_grad():  # an end token often enough
        policy.lm_head.weight[tokenizer.eos_token_id] *= 40
    reference, start = copy.deepcopy(policy), copy.deepcopy((policy, value))
    prompts = torch.randint(2, 320, (12, PROMPT)).tolist()
    config = module.PPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=12, gradient_accumulation_steps=1, num_mini_batches=1,
        total_episodes=12, num_ppo_epochs=2, response_length=ANSWER, stop_token="eos", missing_eos_penalty=1.0,
        kl_coef=0.3, temperature=0.7, vf_coef=0.1, cliprange=0.2, cliprange_value=0.2, gamma=1.0, lam=0.95,
        report_to=[], num_sample_generations=0, use_cpu=True, bf16=False, save_strategy="no", learning_rate=LR,
    )  # fmt: skip
    weights = [*policy.parameters(), *value.parameters()]
    theirs = module.PPOTrainer(
        config, processing_class=tokenizer, model=policy, ref_model=copy.deepcopy(reference), reward_model=reward,
        value_model=value, train_dataset=datasets.Dataset.from_dict({"input_ids": prompts}),
        optimizers=(torch.optim.SGD(weights, lr=LR), None),
    )  # fmt: skip
    said: list[Tensor] = []
    generate = module.batch_generation

    def kept(*args: object) -> tuple[Tensor, Tensor]:
        answers, logits = generate(*args)
        said.append(answers.clone())
        return answers, logits

    monkeypatch.setattr(module, "batch_generation", kept)
    theirs.train()

    rollouts = [rollout_of(row.tolist(), tokenizer) for row in said[0]]
    assert len({len(r.tokens) for r in rollouts}) > 2
    assert {r.finish for r in rollouts} == {"stop", "length"}
    ours, critic = start
    learner = engine.learner(Roles(policy=ours, scorer=critic), Optim(name="sgd", lr=LR, clip=0))
    actors = SimpleNamespace(
        learner=learner, policy=ours, critic=critic, reference=engine.place(reference), tokenizer=tokenizer
    )
    with torch.no_grad():
        scores = [Score(float(reward(torch.tensor([r.prompt_tokens + r.tokens])).logits)) for r in rollouts]
    params = PpoParams(kl=0.3, score_at="after", bessel=True, missing_eos=1.0)
    batch, _ = credit(
        rollouts, scores, cast(Actors, actors), engine, params, beta=0.3, moments=Moments(), micro_tokens=4096,
        rollout=RolloutParams(temperature=0.7, max_new_tokens=ANSWER),
    )  # fmt: skip
    for _ in range(2):
        engine.update(learner, batch, ppo, {"clip": 0.2, "value_coef": 0.1, "value_clip": 0.2})
    begun = [*reference.parameters(), *scorer(1).parameters()]
    for mine, now, before in zip([*ours.parameters(), *critic.parameters()], weights, begun, strict=True):
        moved, rounding = float((now - before).norm()), 1e-7 * float(now.norm())
        assert moved > 10 * rounding
        assert float((mine - now).norm()) < 1e-5 * moved + rounding


def rollout_of(tokens: list[int], tokenizer: PreTrainedTokenizerFast) -> Rollout:
    """What TRL sampled, up to its end token."""
    answer = tokens[PROMPT:]
    ended = tokenizer.eos_token_id in answer
    answer = answer[: answer.index(tokenizer.eos_token_id) + 1] if ended else answer
    return Rollout(
        prompt=[], text="", prompt_tokens=tokens[:PROMPT], tokens=answer, logp=[0.0] * len(answer),
        finish="stop" if ended else "length",
    )  # fmt: skip
