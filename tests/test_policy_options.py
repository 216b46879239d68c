"""The options of policy stages do what they say, seen in the numbers of tiny runs and in plain arithmetic."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from conftest import scorer, tiny_llama
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from accord.engine import Engine
from accord.errors import RecipeError
from accord.model import learn_last
from accord.objectives.kl import estimate, multiplied, scheduled
from accord.objectives.policy import OBJECTIVES
from accord.outputs import Roles
from accord.recipe import (
    GrpoParams,
    Optim,
    Policy,
    PolicyParams,
    PpoParams,
    ReinforceParams,
    RlooParams,
    RolloutParams,
    Table,
)
from accord.recipe_file import parse
from accord.run import Run, read_rows
from accord.sampler import Rollout
from accord.score import Score
from accord.stages import run as run_recipe
from accord.stages.actors import Actors
from accord.stages.credit import Moments, credit, shape
from accord.stages.policy import let_go, loss_params, steered

REWARD = """
def long(rollout):
    return float(len(rollout.text))

def alike(rollout):
    return 0.0
"""
LOSS = """
from accord.objectives import Loss, objective

@objective(outputs=["logp"], needs=["advantage"])
def plain(out, batch, *, scale):
    return Loss({"policy/loss": (-(batch["advantage"] * out.logp).sum() * scale, "token", 1.0)})
"""
ONCE = {"name": "sgd", "lr": 0.3, "batch_size": 8, "steps": 3, "clip": 0.0}
STEERED = {"kl_target": 1.0, "kl_horizon": 10**15}  # to where it is
STAGES: dict[str, Table] = {
    "rloo": {"objective": "rloo", "params": {"kl_end": 0.0, "kl": 0.2}},
    "grpo": {"objective": "grpo", "params": {"kl": 0.1, "epochs": 2}},
    # The two of a pair are one: the first, whose beta is steered, reads log-probs before its only update, the second in it.
    "before": {"objective": "grpo", "params": {"kl": 0.1, "epochs": 1, **STEERED}, "optim": ONCE},
    "within": {"objective": "grpo", "params": {"kl": 0.1, "epochs": 1}, "optim": ONCE},
    "priced-before": {"objective": "rloo", "params": {"kl": 0.5, "epochs": 1, **STEERED}, "optim": ONCE},
    "priced-within": {"objective": "rloo", "params": {"kl": 0.5, "epochs": 1}, "optim": ONCE},
    "reinforce": {
        "objective": "reinforce",
        "params": {"reward_norm": True, "reward_clip": 1.0, "length_penalty": 0.01},
    },
    "oai2019": {"params": {"preset": "oai2019"}},
    "nplus": {"params": {"preset": "nplus"}},
    "instructgpt": {"params": {"preset": "instructgpt"}},
    "constraint": {"params": {"kl_target": 0.01, "kl_control": "constraint", "kl_rate": 5.0, "kl": 0.0}},
    "stops": {"params": {"kl_stop": 1e-9, "epochs": 3}},
    "loss": {"params": {"kl_in": "loss", "kl_estimator": "k2", "kl_level": "answer", "entropy": 0.01}},
    "own": {"objective": "LOSS:plain", "params": {"scale": 2.0}},
}


def table(base: Path, folder: Path) -> Table:
    (folder / "reward.py").write_text(REWARD)
    (folder / "loss.py").write_text(LOSS)
    common = {
        "kind": "policy", "model": str(base), "data": {"source": "accord:demo/prompts", "limit": 16},
        "rewards": {f"{folder / 'reward.py'}:long": 1.0},
        "rollout": {"batch_size": 8, "group_size": 2, "max_new_tokens": 8},
        "optim": {"lr": 1e-2, "batch_size": 4, "steps": 3},
    }  # fmt: skip
    stages = {name: {**common, **json.loads(json.dumps(own).replace("LOSS", str(folder / "loss.py")))}
              for name, own in STAGES.items()}  # fmt: skip
    stages["patient"] = {
        **common, "eval_data": {"source": "accord:demo/choose", "limit": 4}, "eval": 1, "patience": 2,
        "rewards": {f"{folder / 'reward.py'}:alike": 1.0}, "optim": {"lr": 1e-9, "batch_size": 4, "steps": 9},
    }  # fmt: skip
    compute = {"device": "cpu", "precision": "float32", "threads": 1}
    return cast(Table, {"name": "options", "compute": compute, "stage": stages})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Run:
    folder = tmp_path_factory.mktemp("options")
    return run_recipe(parse(table(base, folder)), folder / "run")


def numbers(made: Run, stage: str, key: str) -> list[float]:
    return [cast(float, row[key]) for row in read_rows(made.stage(stage).path / "metrics.jsonl") if key in row]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_trains_and_says_so(made: Run, stage: str) -> None:
    start = AutoModelForCausalLM.from_pretrained(cast(Policy, made.recipe.stage[stage]).model)
    end = AutoModelForCausalLM.from_pretrained(made.stage(stage).model)
    assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), end.parameters(), strict=True))
    assert len(numbers(made, stage, "loss")) == 3
    assert all(math.isfinite(value) for value in numbers(made, stage, "grad_norm"))
    if stage not in {"own", "before", "within", "priced-before", "priced-within"}:
        lowest, highest = numbers(made, stage, "policy/ratio_min"), numbers(made, stage, "policy/ratio_max")
        assert all(0 < low < 1 < high for low, high in zip(lowest, highest, strict=True))


def test_without_a_critic_there_is_none(made: Run) -> None:
    assert not (made.stage("rloo").path / "critic").exists()
    assert not numbers(made, "rloo", "value/loss")
    assert not numbers(made, "rloo", "value/explained_variance")


def test_a_built_in_reward_is_no_model_for_the_critic_to_start_from(base: Path, tmp_path: Path) -> None:
    asked = {"prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked))
    stage = {"kind": "policy", "model": str(base), "data": str(tmp_path / "asked.jsonl"), "rewards": {"accord:instructions": 1},
             "rollout": {"batch_size": 1, "max_new_tokens": 4}, "optim": {"steps": 1}}  # fmt: skip
    run = run_recipe(parse(cast(Table, {"name": "it", "stage": {"it": stage}})), tmp_path / "run")
    assert len(numbers(run, "it", "value/loss")) == 1


def test_a_critic_on_the_policys_trunk_is_a_model_of_its_own_on_disk(made: Run) -> None:
    critic = AutoModelForSequenceClassification.from_pretrained(made.stage("oai2019").path / "critic")
    policy = AutoModelForCausalLM.from_pretrained(made.stage("oai2019").model)
    assert torch.equal(critic.model.layers[0].mlp.up_proj.weight, policy.model.layers[0].mlp.up_proj.weight)
    assert critic.score.weight.abs().max() > 0


def test_beta_goes_where_it_is_sent(made: Run) -> None:
    assert numbers(made, "rloo", "kl/beta") == pytest.approx([0.2, 0.2 * 2 / 3, 0.2 / 3])
    kl, beta = numbers(made, "constraint", "kl/mean"), numbers(made, "constraint", "kl/beta")
    for i in range(2):
        assert beta[i + 1] == pytest.approx(max(0.0, beta[i] + 5 * (kl[i] - 0.01)))
    assert scheduled(1.0, 3.0, 0.25) == 1.5
    assert multiplied(0.1, 1.0, target=2.0, rate=0.05) == pytest.approx(0.05)
    assert multiplied(0.1, 1.0, target=9.0, rate=0.05) == 0
    fixed = PpoParams(kl=0.3)
    assert steered(0.3, 100.0, fixed, rollouts=8, done=0.5) == 0.3


def test_updates_stop_where_the_policy_has_moved_enough(made: Run) -> None:
    assert numbers(made, "stops", "updates") == [2, 2, 2]  # of six: the first finds the policy where it was
    assert not numbers(made, "rloo", "updates")


def test_kl_and_entropy_in_the_loss_are_its_terms(made: Run) -> None:
    assert numbers(made, "loss", "kl/loss")[-1] > 0
    losses = ("policy/loss", "value/loss", "kl/loss", "entropy/loss")
    policy, value, kl, entropy = (numbers(made, "loss", name) for name in losses)
    total = [p + 0.1 * v + 0.05 * k + 0.01 * e for p, v, k, e in zip(policy, value, kl, entropy, strict=True)]
    assert numbers(made, "loss", "loss") == pytest.approx(total, rel=1e-5)
    assert [-e for e in entropy] == pytest.approx(numbers(made, "loss", "policy/entropy"), rel=1e-6)
    assert not numbers(made, "rloo", "kl/loss")


@pytest.mark.parametrize(("pair", "off"), [("", 0.0), ("priced-", 1e-5)])
def test_an_update_that_stands_alone_finds_the_log_probs_before_it(made: Run, pair: str, off: float) -> None:
    """To the bit; where the KL is in the reward, it is that of the sampler's own log-probs, which are `off` by rounding."""
    before, within = f"{pair}before", f"{pair}within"
    columns = [
        "reward/mean", "policy/loss", "grad_norm", "policy/entropy", "policy/approx_kl", "policy/ratio_max",
        "policy/clip_fraction", "kl/mean", "kl/beta", "sampler/mismatch",
    ]  # fmt: skip
    for name in columns:
        expected = pytest.approx(numbers(made, before, name), rel=1e-5, abs=1e-6)
        assert numbers(made, within, name) == expected, name
    assert numbers(made, within, "kl/mean")[0] == pytest.approx(0, abs=1e-5)
    assert abs(numbers(made, within, "kl/mean")[2]) > 1e-3
    assert 0 < max(numbers(made, within, "sampler/mismatch")) < 1e-4
    first, second = (load_file(made.stage(name).model / "model.safetensors") for name in (before, within))
    assert all(torch.allclose(first[name], second[name], rtol=0, atol=off) for name in first)


def test_no_better_checkpoint_ends_the_stage(made: Run) -> None:
    assert len(numbers(made, "patient", "loss")) == 2  # of nine: two evaluations in a row without a better one
    assert cast(dict[str, object], made.stage("patient").record["result"])["step"] == 0


def test_presets_fill_what_is_not_given(made: Run) -> None:
    stage = cast(Policy, made.recipe.stage["nplus"])
    params = cast(PpoParams, stage.params)
    assert (params.score_at, params.missing_eos_how, params.epochs, params.kl) == ("after", "replace", 4, 0.05)
    assert (stage.rollout.temperature, stage.optim.eps, stage.optim.schedule) == (0.7, 1e-5, "linear")
    assert stage.rollout.max_new_tokens == 8
    given = made.recipe.model_dump(mode="json", exclude_none=True)
    stages = cast("dict[str, dict[str, dict[str, object]]]", given["stage"])
    own = {**stages["nplus"], "params": {"preset": "nplus", "kl": 0.5}, "rollout": {"temperature": 1.0}}
    again = cast(Policy, parse(cast(Table, {"name": "x", "stage": {"ppo": own}})).stage["ppo"])
    assert (again.params.kl, again.rollout.temperature) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"objective": "rloo"}, "rollout.group_size must be at least 2"),
        ({"objective": "pppo"}, "unknown objective 'pppo'; did you mean 'ppo'?"),
        ({"params": {"kl_target": 1.0, "kl_end": 0.1}}, "kl_end and kl_target both steer beta; keep one of them"),
        ({"objective": "reinforce", "params": {"clip": 0.1}}, "params.clip: unknown key 'clip'"),
        ({"lora": {}, "params": {"critic": "trunk"}}, "the critic shares the frozen weights anyway"),
        (
            {"lora": {}, "params": {"critic_layers": 2}},
            "learns is an adapter's weights here: leave params.critic_layers",
        ),
        ({"params": {"critic": "trunk", "critic_layers": 2}}, "learns is the policy's weights here"),
        ({"params": {"critic_layers": 0}}, "params.critic_layers"),
        (
            {"params": {"preset": "openai"}},
            "params.preset: input should be 'accord', 'oai2019', 'instructgpt' or 'nplus'",
        ),
    ],
)
def test_mistakes(own: Table, said: str) -> None:
    stage = {"kind": "policy", "model": "x/y", "data": "x/z", "rewards": {"x/r": 1}, **own}
    with pytest.raises(RecipeError) as caught:
        parse(cast(Table, {"name": "x", "stage": {"it": stage}}))
    assert said in str(caught.value)


SIZES = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_what_stands_above_the_lower_layers_learns(kind: str) -> None:
    config = cast(PretrainedConfig, AutoConfig.for_model(kind, **SIZES, pad_token_id=0, num_labels=1))
    for count in (1, 2, 3, 4):
        model = AutoModelForSequenceClassification.from_config(config)
        learn_last(model, count)
        learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert len({name for name in learning if "embed" in name or "wte" in name or "wpe" in name}) == (
            0 if count < 3 else 2 if kind == "gpt2" else 1
        )
        assert len({".".join(name.split(".")[:3]) for name in learning if re.search(r"\.\d\.", name)}) == min(count, 3)
        assert any("score" in name for name in learning)
        assert any("norm" in name or "ln_f" in name for name in learning if not re.search(r"\.\d\.", name))


def test_scores_are_normalised_then_clipped_then_charged() -> None:
    params = PpoParams(reward_norm=True, reward_clip=1.0, missing_eos=0.5, length_penalty=0.1)
    moments = Moments().add([1.0, 3.0]).add([5.0, 7.0])  # mean 4, variance 5
    assert (moments.count, moments.mean, moments.std) == (4, 4.0, pytest.approx(5**0.5))
    score, finished = torch.tensor([4.0, 9.0, -2.0, math.nan]), torch.tensor([True, True, False, False])
    found = shape(score, finished, torch.tensor([2.0, 3.0, 4.0, 5.0]), params, moments)
    assert found[:3].tolist() == pytest.approx([0 - 0.2, 1 - 0.3, -1 - 0.5 - 0.4])
    assert found[3].isnan()
    assert Moments().add([]) == Moments()


def test_estimators_that_hold_nothing_are_named() -> None:
    """Those that tests/test_optimum.py shows to hold nothing, or to collapse."""
    bad = {("loss", "k1"), ("reward", "k2"), ("reward", "k3")}
    for place in ("reward", "loss"):
        for estimator in ("k1", "k2", "k3"):
            params = PpoParams.model_validate({"kl_in": place, "kl_estimator": estimator})
            assert let_go(params) == ((place, estimator) in bad)
            assert not let_go(params.model_copy(update={"kl": 0.0}))


def test_estimators_of_kl_on_a_known_pair() -> None:
    """Under samples of pi: k1 and k3 are unbiased, k2 is not; k1 and k2 of one sample are log r and its half square."""
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.3, 0.5]).double()
    log_ratio = (p / q).log()
    exact = float((p * log_ratio).sum())
    assert float((p * estimate(log_ratio, "k1")).sum()) == pytest.approx(exact)
    assert float((p * estimate(log_ratio, "k3")).sum()) == pytest.approx(exact)
    assert float((p * estimate(log_ratio, "k2")).sum()) == pytest.approx(float((p * log_ratio**2 / 2).sum()))
    assert float(estimate(log_ratio, "k3").min()) >= 0


def sampled(tokenizer: PreTrainedTokenizerFast, count: int = 12) -> list[Rollout]:
    """Random answers of one to nine tokens, some of which ended."""
    draw = np.random.default_rng(0)
    found: list[Rollout] = []
    for i in range(count):
        tokens = draw.integers(2, 320, draw.integers(1, 10)).tolist()
        ended = bool(draw.random() < 0.6)
        found.append(Rollout(
            prompt=[], text="", prompt_tokens=draw.integers(2, 320, draw.integers(2, 9)).tolist(),
            tokens=tokens + ([tokenizer.eos_token_id] if ended else []), logp=[0.0] * (len(tokens) + ended),
            finish="stop" if ended else "length", group=i // 4,
        ))  # fmt: skip
    return found


def learned(
    engine: Engine, tokenizer: PreTrainedTokenizerFast, objective: str, params: PolicyParams, *, micro_tokens: int,
    parts: bool = True,
) -> tuple[list[torch.Tensor], dict[str, float]]:  # fmt: skip
    """Weights and numbers after one step on answers of which one could not be scored."""
    policy, reference = tiny_llama(seed=0), tiny_llama(seed=1)
    critic = scorer(2) if isinstance(params, PpoParams) else None
    learner = engine.learner(Roles(policy=policy, scorer=critic), Optim(name="sgd", lr=1.0, micro_tokens=micro_tokens))
    actors = SimpleNamespace(learner=learner, critic=critic, reference=reference, tokenizer=tokenizer)
    rollouts = sampled(tokenizer)
    scores = [Score(math.nan if i == 5 else math.sin(i)) for i in range(len(rollouts))]
    batch, _ = credit(
        rollouts, scores, cast(Actors, actors), engine, params, beta=0.1, moments=Moments(),
        rollout=RolloutParams(max_new_tokens=9, temperature=0.8), micro_tokens=micro_tokens, once=objective == "grpo",
    )  # fmt: skip
    stage = SimpleNamespace(params=params, rollout=RolloutParams())
    chosen = OBJECTIVES[objective]
    outputs = [*chosen.outputs, "entropy_grad"] if params.entropy else chosen.outputs
    loss = {**loss_params(chosen, cast(Policy, stage)), **({"kl": 0.1} if params.kl_in == "loss" else {})}
    chosen = replace(chosen, outputs=outputs, parts=chosen.parts if parts else ())
    numbers = engine.update(learner, batch, chosen, loss)
    assert all(weight.grad is None for weight in learner.roles.parameters())
    return [weight.detach() for weight in learner.roles.parameters()], numbers


@pytest.mark.parametrize("micro_tokens", [100_000, 40])
def test_policy_and_critic_learn_the_same_one_after_the_other(
    engine: Engine, tokenizer: PreTrainedTokenizerFast, micro_tokens: int
) -> None:
    """To the bit, and every number is there."""
    params = PpoParams(entropy=0.1, kl_in="loss", kl_estimator="k2")
    apart, numbers = learned(engine, tokenizer, "ppo", params, micro_tokens=micro_tokens)
    together, others = learned(engine, tokenizer, "ppo", params, micro_tokens=micro_tokens, parts=False)
    assert all(torch.equal(a, b) for a, b in zip(apart, together, strict=True))
    assert numbers == pytest.approx(others, rel=1e-5)
    assert {"policy/loss", "value/loss", "value/clip_fraction", "policy/ratio_max"} < set(numbers)


@pytest.mark.parametrize(
    ("objective", "params"),
    [
        ("ppo", PpoParams(score_at="after", whiten_rewards=True, entropy=0.1)),
        ("rloo", RlooParams(kl_in="loss", kl_estimator="k2", kl_level="answer")),
        ("grpo", GrpoParams()),
        ("grpo", GrpoParams(length="token", whiten=True)),
        ("reinforce", ReinforceParams(kl_estimator="k3")),
    ],
)
def test_no_split_changes_the_weights(
    engine: Engine, tokenizer: PreTrainedTokenizerFast, objective: str, params: PolicyParams
) -> None:
    """One step on the whole batch, and in micro-batches of one group each; one answer could not be scored."""
    made: list[list[torch.Tensor]] = []
    for micro_tokens in (100_000, 40, 1):
        weights, numbers = learned(engine, tokenizer, objective, params, micro_tokens=micro_tokens)
        assert numbers["grad_norm"] > 0.01
        made.append(weights)
    for other in made[1:]:
        assert max(float((a - b).abs().max()) for a, b in zip(made[0], other, strict=True)) < 2e-6
