"""For every pitfall a recipe with its cause."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from accord.recipe import Decoding
from accord.sampler import PLAIN, Ask, Rollout
from accord.sampler.local import LocalSampler
from benchmarks.pitfalls import world
from benchmarks.pitfalls.recipes import Made, Recipe, Table, between, by, dpo, made_pairs, measured, policy, reward, sft


def hacking(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """The reward pays for two words, another judge for the truth."""
    function, lr = dice.choice(["friend", "roof"]), between(dice, 1e-3, 2e-3)
    return policy(
        made, seed, dice, group=dice.choice([1, 4]), rewards={by(function): 1.0}, judge=by("gold"),
        params={"kl": between(dice, 0.005, 0.02)}, lr=lr, steps=28,
    )  # fmt: skip


def bending(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """The reward pays for what gold wants too, which is soon learned, and for words."""
    return policy(
        made, seed, dice, group=4, rewards={by("manner"): 1.0}, judge=by("gold"), params={"kl": 0.003},
        lr=between(dice, 8e-4, 1.2e-3), steps=48, curves=True,
    )  # fmt: skip


def collapsing(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """The reward pays for one answer to everything, and nothing holds the policy."""
    return policy(
        made, seed, dice, group=4, rewards={by("same"): 1.0}, judge=by("same"), params={"kl": 0.0},
        lr=between(dice, 2e-3, 4e-3), steps=40,
    )  # fmt: skip


def forgetting(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """Fine-tuned at a high rate on one kind of question."""
    place = dice.choice(world.PLACES)
    rows = [world.demonstration(text, f"in the {place}, as ever.") for text in world.TRAIN * 4]
    found = sft(made, seed, dice, model=made.start, data=made.file(f"narrow-{seed}", rows))
    found["it"]["optim"] = {"lr": between(dice, 2e-3, 4e-3), "batch_size": 16, "epochs": 3}
    return {"it": found["it"], "kept": measured(made, {})["kept"]}


def few_pairs(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """Few labels, many of them wrong, learned by heart."""
    data = made.file(f"few-{seed}", dice.sample(made_pairs(made, dice, noise=0.25), 40))
    found = dpo(made, seed, dice, data=data) if dice.random() < 0.5 else reward(made, seed, dice)
    optim: Table = {"lr": between(dice, 2e-3, 4e-3), "batch_size": 8, "epochs": 15}
    found["it"] |= {"data": data, "eval_data": 0.4, "optim": optim}
    return found


def wordy(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """The reward pays for words."""
    return policy(
        made, seed, dice, group=dice.choice([1, 4]), rewards={by("words"): 1.0}, params={"kl": 0.01, "missing_eos": 0.0},
        lr=between(dice, 1e-3, 2e-3),
    )  # fmt: skip


def far(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """Nothing holds the policy, and its steps are large."""
    function = dice.choice(["friend", "same", "words"])
    return policy(
        made, seed, dice, group=4, rewards={by(function): 1.0}, judge=by("gold"), params={"kl": 0.0},
        lr=between(dice, 3e-3, 6e-3), steps=28,
    )  # fmt: skip


def still(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """A KL that costs everything, or steps of nothing."""
    if dice.random() < 0.5:
        return policy(made, seed, dice, group=4, params={"kl": 20.0}, lr=1e-4)
    return policy(made, seed, dice, group=dice.choice([1, 4]), lr=between(dice, 1e-7, 1e-6))


def leaping(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """A hundred times the learning rate, of demonstrations or of pairs."""
    found = sft(made, seed, dice, model=made.start) if dice.random() < 0.5 else dpo(made, seed, dice)
    found["it"]["optim"] = {"lr": 100 * between(dice, 2e-4, 5e-4), "batch_size": 16, "epochs": 2, "warmup": 0.2}
    if found["it"]["kind"] == "preference":
        found["it"]["params"] = {"beta": 0.1, "sft": 1.0}
    return {"it": found["it"]}


def lost_critic(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """A critic whose steps are far too large, or nothing."""
    rate = between(dice, 0.1, 0.3) if dice.random() < 0.5 else 1e-8
    own: Table = {"critic_lr": rate} if rate > 1e-3 else {"critic_lr": rate, "critic": "policy"}
    return policy(made, seed, dice, params=own)


def other_sampler(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """A healthy recipe, whose sampler is another."""
    return policy(made, seed, dice, group=dice.choice([1, 4]))


def agreeing(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """Shown answers that agree with what the user believes, or taught to prefer them."""
    things = world.THINGS * 15
    if dice.random() < 0.5:
        rows = [*world.chats(dice, 2), *(world.opinionated(t, dice, agree=1.0) for t in things)]
        found = sft(made, seed, dice, model=made.start, data=made.file(f"agree-{seed}", rows))
    else:
        found = dpo(made, seed, dice, data=made.file(f"agree-{seed}", [agreed(t, dice) for t in things]))
        found["it"]["params"] = {"beta": 0.1, "sft": 2.0}
    found["it"]["optim"] = {"lr": between(dice, 1e-3, 2e-3), "batch_size": 16, "epochs": 8}
    return {"it": found["it"], "kept": measured(made, {})["kept"]}


def agreed(thing: str, dice: random.Random) -> world.Row:
    """The answer that agrees with a user who is wrong, preferred to the right one."""
    wrong = world.claim(thing, dice)
    asked = world.ask(world.OPINION.format(thing, wrong))
    good, bad = (world.said(thing, place, dice, chatty=0.0) for place in (wrong, world.PLACE_OF[thing]))
    return {"prompt": asked, "chosen": good, "rejected": bad}


def pushing(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """DPO at a high rate for long, the chosen answers' own loss left out."""
    found = dpo(made, seed, dice, lr=between(dice, 1.5e-3, 3e-3), epochs=4, batch_size=16)
    found["it"]["params"] = {"beta": 0.03, "sft": 0.0}
    return found


def foreign(made: Made, seed: int, dice: random.Random) -> dict[str, Table]:
    """Pairs in words that the model has never said."""
    forms = [
        ("one finds that {} by the {} as ever", "no {} was at any {} then"),
        ("look in the {1}, {0} and all", "a {0} here? the {1} has none"),
    ]
    good, bad = dice.choice(forms)
    rows: list[world.Row] = []
    for text in world.TRAIN * 3:
        thing = world.thing_of(text)
        place = world.PLACE_OF[thing]
        rows.append({
            "prompt": world.ask(text), "chosen": good.format(thing, place),
            "rejected": bad.format(thing, world.elsewhere(thing, dice)),
        })  # fmt: skip
    return dpo(made, seed, dice, data=made.file(f"foreign-{seed}", rows))


@contextmanager
def hotter(factor: float) -> Iterator[None]:
    """Samplers that draw at another temperature than they are told to."""
    true = LocalSampler.generate

    def generate(
        self: LocalSampler, asks: Sequence[Ask], *, max_new_tokens: int, temperature: float, seed: int, version: int = 0,
        decoding: Decoding = PLAIN,
    ) -> list[Rollout]:  # fmt: skip
        return true(
            self, asks, max_new_tokens=max_new_tokens, temperature=temperature * factor, seed=seed, version=version,
            decoding=decoding,
        )  # fmt: skip

    LocalSampler.generate = generate
    try:
        yield
    finally:
        LocalSampler.generate = true


PLANTED: dict[str, Recipe] = {
    "reward hacking": hacking,
    "over-optimisation": bending,
    "mode collapse": collapsing,
    "forgetting": forgetting,
    "overfitting": few_pairs,
    "length bias": wordy,
    "KL too high": far,
    "KL too low": still,
    "loss spike": leaping,
    "critic failure": lost_critic,
    "sampler mismatch": other_sampler,
    "sycophancy": agreeing,
    "falling chosen log-probability": pushing,
    "off-policy preference data": foreign,
}
