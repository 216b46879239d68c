"""Makes the comparisons that ship with the package: python recipes/demo_comparisons.py SFT_MODEL_FOLDER

Answers are sampled from the fine-tuned model of recipes/quickstart.toml, four to a request at temperatures 0.7, 1, 1 and
1.15, and ranked by simulated annotators (accord/demo/people.py).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import get_args

from accord.data.chat import prompts as tokens_of
from accord.data.records import Prompt, Ranking, to_row
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.demo.answers import prompt_of, with_form
from accord.demo.comparisons import FOLDER
from accord.demo.gold import gold
from accord.demo.people import ANNOTATORS, ranks
from accord.demo.tasks import Reason, Side, refusals, requests, tasks
from accord.model import load_policy
from accord.sampler import Ask, Rollout
from accord.sampler.local import LocalSampler

TEMPERATURES = (0.7, 1.0, 1.0, 1.15)
COUNTS: dict[Side, int] = {"train": 5000, "choose": 350}


def requests_of(side: Side, dice: random.Random) -> Iterator[Prompt]:
    """Requests without end, a third of them to turn down, for each reason alike, in any of their wordings."""
    while True:
        if dice.random() < 0.33:
            reason = dice.choice(get_args(Reason))
            refusal = dice.choice([refusal for refusal in refusals(side) if refusal.reason == reason])
            yield prompt_of(with_form(dice, refusal.request), refusal, False)
        else:
            task = dice.choice(tasks(side))
            request, look_alike = dice.choice(requests(task))
            yield prompt_of(request, task, look_alike)


def distinct(found: Iterator[Prompt], count: int) -> list[Prompt]:
    """The first `count` prompts that differ."""
    kept: dict[str, Prompt] = {}
    while len(kept) < count:
        prompt = next(found)
        kept.setdefault(prompt.prompt[-1]["content"], prompt)
    return list(kept.values())


def sample(model: Path, prompts: Sequence[Prompt], seed: int) -> list[list[Rollout]]:
    """Answers to each prompt, one at each temperature."""
    tokenizer = load_tokenizer(model, "model")
    sampler = LocalSampler(load_policy(model, tokenizer, "model"), tokenizer, stop_ids(tokenizer, model))
    tokens = tokens_of(tokenizer, [prompt.prompt for prompt in prompts])
    found: list[list[Rollout]] = []
    for k, temperature in enumerate(TEMPERATURES):
        asks = [
            Ask(prompt=prompt.prompt, tokens=row, number=i, meta=prompt.meta)
            for i, (prompt, row) in enumerate(zip(prompts, tokens, strict=True))
        ]
        found.append(sampler.generate(asks, max_new_tokens=96, temperature=temperature, seed=seed + k))
        print(f"temperature {temperature}: {len(asks)} answers")
    return [list(group) for group in zip(*found, strict=True)]


def labelled(groups: Sequence[Sequence[Rollout]], annotators: int, dice: random.Random) -> list[Ranking]:
    """Every group that holds a choice, ranked by so many people each."""
    kept = [group for group in groups if len({r.text for r in group}) > 1 and all(r.text.strip() for r in group)]
    return [
        Ranking(prompt=group[0].prompt, responses=[r.text for r in group], ranks=ranks(group, who, dice),
                meta={**group[0].meta, "annotator": who.name})
        for group in kept
        for who in dice.sample(ANNOTATORS, annotators)
    ]  # fmt: skip


def describe(groups: Sequence[Sequence[Rollout]], dice: random.Random) -> None:
    """How good the answers are, how often two people agree, and how often one agrees with gold."""
    agree: list[bool] = []
    right: list[bool] = []
    for group in groups:
        one, two = (ranks(group, who, dice) for who in dice.sample(ANNOTATORS, 2))
        true = [gold(rollout).value for rollout in group]
        for i, j in combinations(range(len(group)), 2):
            if group[i].text != group[j].text:
                agree.append((one[i] < one[j]) == (two[i] < two[j]))
                if true[i] != true[j]:
                    right.append((one[i] < one[j]) == (true[i] > true[j]))
    values = [gold(rollout).value for group in groups for rollout in group]
    print(f"gold {sum(values) / len(values):.3f}; two people agree on {sum(agree) / len(agree):.3f} of {len(agree)} "
          f"comparisons; one agrees with gold on {sum(right) / len(right):.3f} of {len(right)} where gold differs")  # fmt: skip


def main() -> None:
    """Sample, label, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of the fine-tuned model")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to (%(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kinds: tuple[tuple[Side, str, int], ...] = (("train", "rankings", 1), ("choose", "rankings-held", 2))
    for side, name, annotators in kinds:
        dice = random.Random(name)
        groups = sample(args.model, distinct(requests_of(side, dice), COUNTS[side]), seed=11)
        describe(groups, dice)
        with gzip.GzipFile(args.out / f"{name}.jsonl.gz", "wb", mtime=0) as file:
            for row in labelled(groups, annotators, dice):
                file.write((json.dumps(to_row(row), ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
