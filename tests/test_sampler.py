"""Sampling: greedy decoding is that of transformers, noise is a function of (seed, number, position), logp is the trainer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from accord.data.batch import Row, collate
from accord.engine import Engine
from accord.model import Roles
from accord.sampler import Ask, Rollout
from accord.sampler.local import LocalSampler, draw, uniform

VOCAB = 320
PAD, END = 0, 1
SHAPE = {"vocab_size": VOCAB, "initializer_range": 0.3, "pad_token_id": PAD, "bos_token_id": None, "eos_token_id": END}
LLAMA = {
    **SHAPE, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SHAPE, n_embd=32, n_layer=2, n_head=4, n_positions=128)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=None)),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=6)),  # shorter than the prompts
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Two layers of each architecture, with weights large enough to have opinions."""
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


@pytest.fixture
def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS["llama"]().eval()


def asks(count: int, *, shortest: int = 1) -> list[Ask]:
    """Prompts of random tokens and unlike lengths, numbered in order."""
    dice = np.random.default_rng(3)
    lengths = dice.integers(shortest, 17, count)
    return [
        Ask(prompt=[{"role": "user", "content": str(i)}], tokens=dice.integers(2, VOCAB, length).tolist(), number=i,
            group=i // 2, meta={"place": i})
        for i, length in enumerate(lengths)
    ]  # fmt: skip


def sampler(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *stops: int, max_rows: int = 128
) -> LocalSampler:
    return LocalSampler(model, tokenizer, set(stops), max_rows)


def greedy(model: PreTrainedModel, tokens: Sequence[int], stops: Sequence[int], limit: int) -> list[int]:
    """What transformers itself says, one prompt at a time and so without any padding."""
    prompt = torch.tensor([tokens])
    generate = cast(Callable[..., Tensor], model.generate)
    said = generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=limit,
        eos_token_id=list(stops), pad_token_id=PAD,
    )  # fmt: skip
    return said[0, len(tokens) :].tolist()


def said(rollouts: Sequence[Rollout]) -> list[list[int]]:
    return [rollout.tokens for rollout in rollouts]


# --------------------------------------------------------------------------------------------------- against references


def test_greedy_is_generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    every = asks(14)
    free = [greedy(model, ask.tokens, [VOCAB - 1], 24) for ask in every]
    stops = sorted({free[0][5], free[1][11], free[2][17]})  # end tokens that some rows reach, early and late
    expected = [greedy(model, ask.tokens, stops, 24) for ask in every]
    found = sampler(model, tokenizer, *stops).generate(every, max_new_tokens=24, temperature=0, seed=0)

    assert said(found) == expected
    assert {rollout.finish for rollout in found} == {"stop", "length"}
    assert len({len(rollout.tokens) for rollout in found}) > 2


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_logp_is_the_trainers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, engine: Engine, temperature: float
) -> None:
    # One token cannot be a row's first: nothing stands before it. Prompts here have at least one token.
    found = sampler(model, tokenizer, *range(1, 30)).generate(
        asks(16), max_new_tokens=20, temperature=temperature, seed=4
    )
    rows = [Row(r.prompt_tokens + r.tokens, [False] * len(r.prompt_tokens) + [True] * len(r.tokens)) for r in found]
    batch = replace(collate([[row] for row in rows], PAD), temperature=temperature)
    out = engine.outputs(Roles(policy=model), batch, ["logp"], micro_tokens=200)

    for i, rollout in enumerate(found):
        torch.testing.assert_close(out.logp[i][batch.train[i]], torch.tensor(rollout.logp), rtol=0, atol=1e-4)
    assert len({rollout.finish for rollout in found}) == 2


def test_greedy_logp_is_at_temperature_one(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    (ask,) = asks(1)
    (found,) = sampler(llama, tokenizer, END).generate([ask], max_new_tokens=6, temperature=0, seed=0)
    with torch.no_grad():
        logits = llama(input_ids=torch.tensor([ask.tokens + found.tokens])).logits[0].double().numpy()
    for i, (token, logp) in enumerate(zip(found.tokens, found.logp, strict=True)):
        before = logits[len(ask.tokens) + i - 1]
        assert logp == pytest.approx(before[token] - np.log(np.exp(before).sum()), abs=1e-5)


# ----------------------------------------------------------------------------------------------------------- neighbours


def test_a_row_does_not_depend_on_its_neighbours(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    def answers(some: Sequence[Ask], max_rows: int = 128) -> list[Rollout]:
        # Equal but for rounding, which changes with the shape of the batch (by 1e-7 of the cumulative distribution): with
        # this seed no draw falls that close to the border between two tokens.
        one = sampler(model, tokenizer, *range(1, 24), max_rows=max_rows)
        return one.generate(some, max_new_tokens=20, temperature=1.0, seed=10)

    every = asks(12)
    together = answers(every)
    backwards = answers(every[::-1])
    alone = [answers([ask])[0] for ask in every]
    in_threes = answers(every, max_rows=3)

    assert said(together) == said(backwards)[::-1] == said(alone) == said(in_threes)
    assert [rollout.text for rollout in together] == [rollout.text for rollout in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=1e-4)
    assert len({len(rollout.tokens) for rollout in together}) > 3  # rows left the batch at different times


def test_answers_come_back_in_order(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    every = asks(9)
    found = sampler(llama, tokenizer, END, max_rows=4).generate(
        every, max_new_tokens=3, temperature=1.0, seed=0, version=5
    )
    assert [r.prompt_tokens for r in found] == [ask.tokens for ask in every]
    assert [r.prompt for r in found] == [ask.prompt for ask in every]
    assert [(r.group, r.meta, r.version) for r in found] == [(ask.group, ask.meta, 5) for ask in every]
    assert sampler(llama, tokenizer, END).generate([], max_new_tokens=3, temperature=1.0, seed=0) == []


def test_seed_and_number_decide(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    ask = asks(1)[0]
    one = sampler(llama, tokenizer, END)

    def text(seed: int, number: int) -> str:
        (found,) = one.generate([replace(ask, number=number)], max_new_tokens=16, temperature=1.0, seed=seed)
        return found.text

    assert text(0, 7) == text(0, 7)
    every = [text(seed, number) for seed in (0, 1, 2) for number in range(8)]
    assert len(set(every)) == len(every)
    # The same pairs in one batch: the answers to one prompt differ by their numbers alone.
    group = one.generate([replace(ask, number=i) for i in range(8)], max_new_tokens=16, temperature=1.0, seed=0)
    assert [rollout.text for rollout in group] == every[:8]


# --------------------------------------------------------------------------------------------------------------- ending


def test_rows_that_end_leave_the_batch(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    stops = set(range(1, 40))
    widths: list[int] = []

    def note(_: nn.Module, __: tuple[object, ...], kwargs: dict[str, Tensor]) -> None:
        widths.append(len(kwargs["input_ids"]))

    handle = llama.register_forward_pre_hook(note, with_kwargs=True)
    found = sampler(llama, tokenizer, *stops).generate(asks(40), max_new_tokens=12, temperature=1.0, seed=1)
    handle.remove()

    for rollout in found:
        assert not stops & set(rollout.tokens[:-1])
        assert rollout.finish == ("stop" if rollout.tokens[-1] in stops else "length")
        assert len(rollout.logp) == len(rollout.tokens)
        assert rollout.finish == "stop" or len(rollout.tokens) == 12
    assert {rollout.finish for rollout in found} == {"stop", "length"}
    assert widths == [sum(len(rollout.tokens) > i for rollout in found) for i in range(12)]


def test_an_answer_may_end_on_its_last_token(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    (ask,) = asks(1)
    (free,) = sampler(llama, tokenizer).generate([ask], max_new_tokens=5, temperature=1.0, seed=0)
    last = free.tokens[-1]
    assert last not in free.tokens[:-1]
    (found,) = sampler(llama, tokenizer, last).generate([ask], max_new_tokens=5, temperature=1.0, seed=0)
    assert (found.tokens, found.finish) == (free.tokens, "stop")
    (first,) = sampler(llama, tokenizer, free.tokens[0]).generate([ask], max_new_tokens=5, temperature=1.0, seed=0)
    assert (first.tokens, first.text) == (free.tokens[:1], "")


def test_text_has_neither_special_tokens_nor_outer_spaces(tokenizer: PreTrainedTokenizerFast) -> None:
    class Parrot(LlamaForCausalLM):
        """Says a fixed sequence: its weights are there to be a model, its logits point at the script."""

        script: Sequence[int] = ()

        def forward(self, input_ids: Tensor, position_ids: Tensor, **_: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
            from transformers.modeling_outputs import CausalLMOutputWithPast

            logits = torch.full((len(input_ids), 1, VOCAB), -50.0)
            logits[:, 0, self.script[int(position_ids[0, -1]) - 2]] = 50.0  # the prompt has three tokens
            return CausalLMOutputWithPast(logits=cast(torch.FloatTensor, logits))

    parrot = Parrot(LlamaConfig(**LLAMA)).eval()

    def speak(text: str, *stops: int) -> Rollout:
        parrot.script = cast(list[int], tokenizer(text, add_special_tokens=False)["input_ids"])
        ask = Ask(prompt=[], tokens=[5, 6, 7], number=0)
        (found,) = sampler(parrot, tokenizer, *stops).generate(
            [ask], max_new_tokens=len(parrot.script), temperature=1.0, seed=0
        )
        return found

    for text, wanted in [
        (" the cat sat.\n<|end|>", "the cat sat."),
        ("\n\n the  cat \t<|end|>", "the  cat"),
        ("<|pad|>the<|pad|> dog<|end|>", "the dog"),
        ("<|end|>", ""),
        ("cut off here ", "cut off here"),
    ]:
        found = speak(text, END)
        assert found.text == wanted
        assert found.finish == ("stop" if "<|end|>" in text else "length")
        assert found.tokens == parrot.script  # white space and end stay among the tokens: that is what was sampled
    full_stop = cast(list[int], tokenizer(".", add_special_tokens=False)["input_ids"])[0]
    assert speak("the cat sat. the dog", END, full_stop).text == "the cat sat"  # an end token is no part of the text


# ---------------------------------------------------------------------------------------------------------------- noise


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draw_follows_the_softmax(temperature: float) -> None:
    n, rows = 20_000, torch.tensor([[0.0, 1.0, -1.0, 2.5, 0.3, -0.7, 1.9, -float("inf")], [3.0] + [0.0] * 7])
    for row in rows:
        noise = uniform(11, torch.arange(n), 2)
        token, logp = draw(row.expand(n, -1), temperature, noise)
        scaled = row.double().numpy() / temperature
        p = np.exp(scaled) / np.exp(scaled).sum()
        counts = np.bincount(token.numpy(), minlength=8)
        possible = p > 0
        assert counts[~possible].sum() == 0
        # 99.9 % quantiles of the chi-square distribution with 6 and 7 degrees of freedom.
        assert chi_square(counts[possible], n * p[possible]) < {7: 22.5, 8: 24.3}[int(possible.sum())]
        np.testing.assert_allclose(logp.numpy(), np.log(p[token.numpy()]), atol=1e-5)


def test_draw_stays_inside_at_the_ends_of_the_noise() -> None:
    logits = torch.tensor([[-float("inf"), 0.0, -float("inf"), 1.0, -float("inf")]]).expand(2, -1)
    token, _ = draw(logits, 1.0, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert token.tolist() == [1, 3]


def test_draw_reaches_rare_tokens() -> None:
    # One token and a tail of 5,000 with 1e-9 each: float32 sums would take 60 of the tail's tokens for one.
    logits = torch.zeros(1, 5_001)
    logits[0, 0] = np.log(1e9 - 5_000)
    n = 500
    noise = 1 - 5e-6 * (torch.arange(n, dtype=torch.float64) + 0.5) / n  # the part of [0, 1) that the tail takes
    token, _ = draw(logits.expand(n, -1), 1.0, noise)
    assert token.unique().numel() == n
    assert token.double().mean() == pytest.approx(2_500, rel=0.02)
    assert (draw(logits, 1.0, noise[-1:] - 2e-8)[0] == 0).all()


def splitmix64(state: int, count: int) -> list[int]:
    """The published generator (https://prng.di.unimi.it/splitmix64.c) in plain integers."""
    found: list[int] = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


def test_uniform_is_splitmix64() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for seed, position in ((0, 0), (1, 3), (12345, 700)):
        start = seed * 6364136223846793005 % 2**62 + (position + 1) * 1442695040888963407 % 2**62
        expected = [number >> 11 for number in splitmix64(start, 1000)]
        found = uniform(seed, torch.arange(1, 1001), position) * 2.0**53
        assert [int(number) for number in found.tolist()] == expected


def test_uniform_is_flat_and_uncorrelated() -> None:
    n = 40_000
    numbers = torch.arange(n)
    base = uniform(0, numbers, 0).numpy()
    assert base.min() >= 0
    assert base.max() < 1
    others = {
        "seed": uniform(1, numbers, 0).numpy(),
        "far seed": uniform(1_000_003, numbers, 0).numpy(),
        "position": uniform(0, numbers, 1).numpy(),
        "far position": uniform(0, numbers, 511).numpy(),
        "number": uniform(0, numbers + 1, 0).numpy(),
        "batch": uniform(0, numbers + 64, 0).numpy(),
        "seed and position": uniform(1, numbers, 1).numpy(),
    }
    for name, values in {"base": base, **others}.items():
        assert values.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / n) ** 0.5), name
        assert values.var() == pytest.approx(1 / 12, rel=0.02), name
        counts = np.histogram(values, bins=64, range=(0, 1))[0]
        assert chi_square(counts, np.full(64, n / 64)) < 103.4, name  # 99.9 % quantile at 63 degrees of freedom
        assert len(np.unique(values)) == n, name
    for name, values in others.items():
        assert abs(np.corrcoef(base, values)[0, 1]) < 4 / n**0.5, name
        # Not only linearly: the pairs fill the unit square evenly.
        square = np.histogram2d(base, values, bins=8, range=((0, 1), (0, 1)))[0]
        assert chi_square(square.ravel(), np.full(64, n / 64)) < 103.4, name


def test_uniform_along_an_answer() -> None:
    # Positions of one answer, for many answers: what a sampled text is really made of.
    grid = torch.stack([uniform(0, torch.arange(200), position) for position in range(200)], dim=1).numpy()  # [n, t]
    assert grid.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / grid.size) ** 0.5)
    np.testing.assert_allclose(grid.mean(0), 0.5, atol=5 * (1 / 12 / 200) ** 0.5)
    np.testing.assert_allclose(grid.mean(1), 0.5, atol=5 * (1 / 12 / 200) ** 0.5)
    for lag in (1, 2, 7):
        assert abs(np.corrcoef(grid[:, :-lag].ravel(), grid[:, lag:].ravel())[0, 1]) < 4 / grid.size**0.5
