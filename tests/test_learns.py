"""PPO learns, judged on what the model says: it is taught two manners of answering, and reward makes the rare one common."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from conftest import tiny_llama
from safetensors.torch import load_file

from accord.data import chat
from accord.data.batch import Row, collate
from accord.data.records import Message, Text
from accord.data.tokenizer import load_tokenizer, pad_id, stop_ids
from accord.model import load_policy, load_scorer
from accord.outputs import Roles
from accord.recipe import Table
from accord.recipe_file import parse
from accord.run import StageFolder, read_rows
from accord.sampler import Ask, Rollout
from accord.sampler.local import LocalSampler
from accord.stages import run
from accord.stages.pretrain import train_tokenizer

THINGS = ["cat", "dog", "hen", "cow", "pig", "key", "hat", "cup"]
PLACES = ["mat", "bed", "shed", "roof"]
ASKS = ["where is the {}?", "I look for the {}.", "have you seen the {}?"]
# Some people like everything and some like nothing. Their habit is most of the reward's variance and none of the policy's
# doing; a critic that reads who is asking takes it out of the advantages.
HABITS = {"Ann": -3.0, "Bob": -1.0, "Cid": 1.0, "Dot": 3.0}
REWARD = f"""
HABITS = {HABITS}

def liked(rollout):
    asker = rollout.prompt[0]["content"].partition(":")[0]
    return float("dear friend" in rollout.text) + HABITS[asker]
"""
RARE = 0.15  # of the demonstrations are courteous


def question(asker: str, wording: str, thing: str) -> list[Message]:
    return [{"role": "user", "content": f"{asker}: {wording.format(thing)}"}]


def answer(thing: str, place: str, *, courteous: bool) -> str:
    return ("dear friend, " if courteous else "") + f"the {thing} is in the {place}."


# An answer that says what is asked for and nothing else: courtesy must not cost the sentence.
WHOLE = re.compile(rf"(dear friend, )?the ({'|'.join(THINGS)}) is in the ({'|'.join(PLACES)})\.")
EVERY = [(asker, wording, thing) for asker in HABITS for wording in ASKS for thing in THINGS]
HELD = EVERY[::5]  # never trained on; every asker, wording and thing is among them
TRAIN = [each for each in EVERY if each not in HELD]


def write(path: Path, rows: Iterable[dict[str, object]]) -> str:
    """Rows as a .jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def one_stage(folder: Path, settings: dict[str, object], *, seed: int) -> StageFolder:
    """A recipe of one stage, run through. One thread: on two cores that others use too, more of them wait for each other."""
    table = {"name": "learns", "seed": seed, "compute": {"device": "cpu", "threads": 1}, "stage": {"it": settings}}
    return run(parse(cast(Table, table)), folder).stage("it")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers these questions, courteously one time in seven."""
    folder = tmp_path_factory.mktemp("taught")
    dice = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for each in TRAIN * 6:
        said = answer(each[2], str(dice.choice(PLACES)), courteous=bool(dice.random() < RARE))
        rows.append({"messages": [*question(*each), {"role": "assistant", "content": said}]})
    texts = [turn["content"] for row in rows for turn in cast(list[Message], row["messages"])]
    tokenizer = train_tokenizer([Text(text=f"User: {text}\nAssistant: {text}") for text in texts], 400)
    base = folder / "base"
    tiny_llama(400, width=64, context=64).save_pretrained(base)
    tokenizer.save_pretrained(base)
    write(folder / "prompts.jsonl", ({"prompt": question(*each)} for each in TRAIN))
    (folder / "reward.py").write_text(REWARD)
    stage = one_stage(
        folder / "sft", seed=0,
        settings={"kind": "sft", "model": str(base), "data": write(folder / "chats.jsonl", rows),
                  "optim": {"lr": 4e-3, "batch_size": 32, "epochs": 8}},
    )  # fmt: skip
    assert stage.model.is_dir()
    return folder


def speak(model: Path, *, seed: int, each: int = 20) -> list[Rollout]:
    """Answers at temperature 1 to prompts that no stage has seen."""
    tokenizer = load_tokenizer(model, "model")
    prompts = [question(*held) for held in HELD] * each
    tokens = chat.prompts(tokenizer, prompts)
    asks = [Ask(prompt=p, tokens=t, number=10**6 + i) for i, (p, t) in enumerate(zip(prompts, tokens, strict=True))]
    sampler = LocalSampler(load_policy(model, tokenizer, "model"), tokenizer, stop_ids(tokenizer, model))
    return sampler.generate(asks, max_new_tokens=16, temperature=1.0, seed=seed)


def share(rollouts: list[Rollout], holds: Callable[[str], object]) -> float:
    """The fraction of answers of which something holds."""
    return float(np.mean([bool(holds(rollout.text)) for rollout in rollouts]))


def courteous(text: str) -> bool:
    return "dear friend" in text


def courteous_and_whole(text: str) -> bool:
    return text.startswith("dear friend") and WHOLE.fullmatch(text) is not None


CRITIC = {"critic": "policy", "critic_lr": 3e-3, "value_coef": 1.0, "value_clip": 0.0}


def optimise(
    taught: Path, folder: Path, *, seed: int, objective: str = "ppo", group: int = 1, **params: object
) -> StageFolder:
    """A policy stage on the reward: 60 batches of 64 answers."""
    return one_stage(
        folder, seed=seed,
        settings={
            "kind": "policy", "model": str(taught / "sft" / "it" / "model"), "data": str(taught / "prompts.jsonl"),
            "rewards": {f"{taught / 'reward.py'}:liked": 1.0}, "objective": objective,
            "params": {"kl": 0.05, **(CRITIC if objective == "ppo" else {}), **params},
            "rollout": {"batch_size": 64, "group_size": group, "max_new_tokens": 16},
            "optim": {"lr": 5e-4, "batch_size": 32, "steps": 60},
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def optimised(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> StageFolder:
    return optimise(taught, tmp_path_factory.mktemp("ppo"), seed=0)


def foreseen(critic: Path) -> list[float]:
    """What the critic expects before the first word of an answer, for each held-out question."""
    tokenizer = load_tokenizer(critic, "critic")
    tokens = chat.prompts(tokenizer, [question(*held) for held in HELD])
    batch = collate([[Row(row, [False] * len(row))] for row in tokens], pad_id(tokenizer))
    with torch.no_grad():
        found = Roles(scorer=load_scorer(critic, tokenizer, "critic", seed=None))(batch, ["reward"])
    return found["reward"][:, 0].tolist()


def last(stage: StageFolder, name: str, steps: int = 5) -> list[float]:
    """A metric over the last few steps."""
    return [cast(float, row[name]) for row in read_rows(stage.path / "metrics.jsonl")[-steps:]]


def test_ppo_makes_the_rare_manner_common(taught: Path, optimised: StageFolder) -> None:
    start, end = speak(taught / "sft" / "it" / "model", seed=1), speak(optimised.model, seed=1)
    assert 0.02 < share(start, courteous) < 0.2
    assert share(start, WHOLE.fullmatch) > 0.8

    assert share(end, courteous) >= 0.9
    assert share(end, courteous_and_whole) > 0.7

    # The shift itself costs log(1 / 0.12) = 2.1 nats; more than a few beyond that would be damage.
    kl = [cast(float, row["kl/mean"]) for row in read_rows(optimised.path / "metrics.jsonl")]
    assert np.isfinite(kl).all()
    assert kl[0] == pytest.approx(0, abs=1e-4)  # policy and reference are one at first
    assert np.mean(kl[-5:]) < 5
    assert max(kl) < 15


def test_the_critic_learns_who_is_asking(optimised: StageFolder) -> None:
    assert np.mean(last(optimised, "value/explained_variance")) > 0.3
    # Explained variance is measured against returns that the critic has a part in. This is not: the habit of the asker of
    # a question that it never saw, plus 1 for the courtesy that is nearly certain by now.
    expected = [HABITS[asker] + 1 for asker, _, _ in HELD]
    assert np.corrcoef(foreseen(optimised.path / "critic"), expected)[0, 1] > 0.9
    np.testing.assert_allclose(foreseen(optimised.path / "critic"), expected, atol=1.0)


def test_without_a_critic_it_learns_less(taught: Path, optimised: StageFolder, tmp_path: Path) -> None:
    """Equal rollouts, but the value stays 0 and credit is the whole return: the askers' habits are noise."""
    stage = optimise(taught, tmp_path, seed=0, lam=1.0, value_coef=0.0, critic_lr=1e-12)
    assert last(stage, "value/explained_variance") == pytest.approx([0] * 5)
    assert set(foreseen(stage.path / "critic")) == {0.0}
    with_critic, without = speak(optimised.model, seed=1), speak(stage.model, seed=1)
    # Over eight seeds: 0.84 to 0.89 with a critic, 0.41 to 0.74 without. What it pays for the noise is broken sentences.
    assert share(with_critic, courteous_and_whole) > share(without, courteous_and_whole) + 0.05


@pytest.mark.parametrize(
    ("objective", "group", "params"),
    [
        ("rloo", 4, {}),
        ("grpo", 4, {"std": False, "length": "constant", "kl_estimator": "k2", "epochs": 2}),
    ],
)
def test_the_relatives_of_ppo_learn_it_too(
    taught: Path, tmp_path: Path, objective: str, group: int, params: dict[str, object]
) -> None:
    stage = optimise(taught, tmp_path, seed=0, objective=objective, group=group, **params)
    end = speak(stage.model, seed=1)
    assert share(end, courteous_and_whole) > 0.6


def test_a_critic_on_the_trunk_leaves_something_to_learn(taught: Path, tmp_path: Path) -> None:
    """Its values' gradient spoils sentences (docs/log.md), so only the manner is asked for: before, less than 0.2 have it;
    after, over ten such runs with a small `value_coef`, 0.64 to 0.96."""
    trunk = {"critic": "trunk", "value_coef": 0.1, "entropy": 0.01, "reward_norm": True}
    assert share(speak(optimise(taught, tmp_path, seed=0, **trunk).model, seed=1), courteous) > 0.4


@pytest.mark.parametrize("judge", ["picky", "asleep"])
def test_what_cannot_be_scored_teaches_nothing(taught: Path, tmp_path: Path, judge: str) -> None:
    (tmp_path / "judge.py").write_text(
        "import math\n\ndef picky(rollout):\n    return math.nan if 'Ann:' in rollout.prompt[0]['content'] else 1.0\n"
        "\n\ndef asleep(rollout):\n    return math.nan\n"
    )
    model = taught / "sft" / "it" / "model"
    stage = one_stage(
        tmp_path / "run", seed=0,
        settings={"kind": "policy", "model": str(model), "data": str(taught / "prompts.jsonl"),
                  "rewards": {f"{tmp_path / 'judge.py'}:{judge}": 1.0}, "params": {"kl_target": 1.0, "critic": "policy"},
                  "rollout": {"batch_size": 16, "max_new_tokens": 8},
                  "optim": {"lr": 1e-3, "batch_size": 1, "steps": 2}},
    )  # fmt: skip
    rows = read_rows(stage.path / "metrics.jsonl")
    unscored = sum(cast(float, row["reward/unscored"]) for row in rows)
    assert unscored == 32 if judge == "asleep" else 0 < unscored < 32
    assert all(value is not None for row in rows for value in row.values())
    before, after = (load_file(folder / "model.safetensors") for folder in (model, stage.model))
    moved = max(float((before[name] - after[name]).abs().max()) for name in before)
    assert moved == 0 if judge == "asleep" else moved > 0
