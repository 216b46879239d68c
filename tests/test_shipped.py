"""What ships with the package: the base model accord:tiny and the comparisons of the embedded world."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from accord import demo
from accord.data.records import Ranking, bucket
from accord.demo import comparisons
from accord.demo.answers import report
from accord.demo.gold import gold
from accord.errors import ModelError
from accord.sampler import Rollout
from accord.stages.reward_quality import agreement

TINY = demo.model("accord:tiny")


def values(ranking: Ranking) -> list[float]:
    """Gold of every answer of a ranking."""
    return [
        gold(
            Rollout(
                prompt=ranking.prompt, text=text, prompt_tokens=[], tokens=[], logp=[], finish="stop", meta=ranking.meta
            )
        ).value
        for text in ranking.responses
    ]


def test_the_base_model_is_small_and_plain() -> None:
    assert (TINY / "model.safetensors").stat().st_size <= 12e6
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    assert {tokenizer.pad_token, tokenizer.eos_token} == {"<|pad|>", "<|end|>"}
    chat = [{"role": "user", "content": "What is crosstalk?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>What is crosstalk?<|assistant|>"
    assert len(tokenizer(text)["input_ids"]) == len(tokenizer("What is crosstalk?")["input_ids"]) + 2
    assert type(AutoModelForCausalLM.from_pretrained(TINY)).__name__ == "LlamaForCausalLM"
    with pytest.raises(ModelError, match="is no embedded model; known: accord:tiny"):
        demo.model("accord:huge")


def test_the_base_model_knows_the_world_and_follows_no_requests() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)

    def says(texts: list[str], tokens: int) -> list[str]:
        given = tokenizer(texts, padding=True, return_tensors="pt")
        out = model.generate(**given, do_sample=False, max_new_tokens=tokens)[:, given["input_ids"].shape[1] :]
        return tokenizer.batch_decode(out, skip_special_tokens=True)

    assert says(["<|end|>Three causes of voltage droop\n-"], 30)[0].count("\n- ") >= 2  # goes on as its text would
    asked = list(report())[:48]
    prompts = [tokenizer.apply_chat_template(e.messages[:1], tokenize=False, add_generation_prompt=True) for e in asked]
    answers = [
        Rollout(prompt=e.messages[:1], text=text, prompt_tokens=[], tokens=[], logp=[], finish="stop", meta=e.meta)
        for e, text in zip(asked, says(prompts, 60), strict=True)
    ]
    assert fmean(gold(rollout).value for rollout in answers) < 0.1


def test_there_are_thousands_of_comparisons() -> None:
    assert sum(1 for _ in comparisons.pairs()) > 5000
    assert sum(len(list(combinations(r.responses, 2))) for r in comparisons.rankings()) > 20_000
    for ranking in comparisons.rankings():
        assert len(ranking.responses) == len(ranking.ranks) == 4
        assert "annotator" in ranking.meta


def test_two_people_agree_as_people_do() -> None:
    """73 % of typical comparisons, as in the studies that people.py names; equal texts are no comparison."""
    found = agreement(list(comparisons.held()))
    assert found is not None
    assert found.n > 1000
    assert 0.70 < found.value < 0.76


def test_people_prefer_what_is_good_but_not_always() -> None:
    right = [
        float(ranking.ranks[i] < ranking.ranks[j])
        for ranking in comparisons.rankings()
        for value in [values(ranking)]
        for i in range(4)
        for j in range(4)
        if value[i] > value[j]
    ]
    assert 0.75 < fmean(right) < 0.95


def test_held_out_comparisons_are_labelled_twice() -> None:
    twice: dict[tuple[int, tuple[str, ...]], set[object]] = {}
    for ranking in comparisons.held():
        twice.setdefault((bucket(ranking, 2**60), tuple(ranking.responses)), set()).add(ranking.meta["annotator"])
    assert all(len(annotators) == 2 for annotators in twice.values())


def test_answers_are_those_of_a_model_that_is_neither_useless_nor_perfect() -> None:
    """Sampled at a temperature of 1: what `HONEST` in test_gold.py stands for."""
    honest = [value for ranking in comparisons.held() for value in values(ranking)[1:3] if not ranking.meta["refuse"]]
    assert 0.38 < fmean(honest) < 0.8
