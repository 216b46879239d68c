"""Sampling: greedy decoding is that of transformers, rows come and go without a trace, logp is the trainer's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    MinPLogitsWarper,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from accord.data.batch import Row, collate
from accord.engine import Engine
from accord.outputs import Roles
from accord.recipe import Decoding
from accord.sampler import PLAIN, Ask, Rollout
from accord.sampler.local import LocalSampler

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
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**LLAMA, head_dim=16)),
    "qwen3-window": lambda: Qwen3ForCausalLM(
        Qwen3Config(**LLAMA, head_dim=16, use_sliding_window=True, sliding_window=6, max_window_layers=1)
    ),  # of the second layer alone
    "gpt-neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(**SHAPE, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                      max_position_embeddings=128)
    ),  # decoded by transformers' own cache
}  # fmt: skip


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


@pytest.mark.parametrize("max_rows", [128, 5])
def test_greedy_is_generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, max_rows: int) -> None:
    every = asks(11)
    free = [greedy(model, ask.tokens, [VOCAB], 24) for ask in every[:3]]
    stops = sorted({free[0][5], free[1][11], free[2][17]})  # end tokens that some rows reach, early and late
    expected = [greedy(model, ask.tokens, stops, 24) for ask in every]
    every, expected = [*every, *every[:3]], [*expected, *expected[:3]]  # of three prompts two answers
    one = sampler(model, tokenizer, *stops, max_rows=max_rows)
    found = one.generate(every, max_new_tokens=24, temperature=0, seed=0)

    assert said(found) == expected
    assert {rollout.finish for rollout in found} == {"stop", "length"}
    assert len({len(rollout.tokens) for rollout in found}) > 2


def test_greedy_is_generate_after_long_prompts(tokenizer: PreTrainedTokenizerFast) -> None:
    """Longer than what plain products read, and more than one forward pass takes."""
    torch.manual_seed(0)
    long = LLAMA | {"max_position_embeddings": 700}
    for made in (LlamaForCausalLM(LlamaConfig(**long)), MistralForCausalLM(MistralConfig(**long, sliding_window=40))):
        dice = np.random.default_rng(5)
        every = [
            Ask(prompt=[], tokens=dice.integers(2, VOCAB, length).tolist(), number=i)
            for i, length in enumerate((600, 300, 256, 257, 31))
        ]
        found = sampler(made.eval(), tokenizer, END).generate(every, max_new_tokens=8, temperature=0, seed=0)
        assert said(found) == [greedy(made, ask.tokens, [END], 8) for ask in every]


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


@contextmanager
def passes(model: PreTrainedModel) -> Iterator[list[int]]:
    """The number of tokens that each forward pass reads."""
    found: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, __, kwargs: found.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    yield found
    handle.remove()


def test_rows_that_end_leave_the_batch(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    stops, every = set(range(1, 40)), asks(40)
    with passes(llama) as read:
        found = sampler(llama, tokenizer, *stops).generate(every, max_new_tokens=12, temperature=1.0, seed=1)

    for rollout in found:
        assert not stops & set(rollout.tokens[:-1])
        assert rollout.finish == ("stop" if rollout.tokens[-1] in stops else "length")
        assert len(rollout.logp) == len(rollout.tokens)
        assert rollout.finish == "stop" or len(rollout.tokens) == 12
    assert {rollout.finish for rollout in found} == {"stop", "length"}
    going = [sum(len(rollout.tokens) > i for rollout in found) for i in range(1, 12)]
    assert read[0] == sum(len(ask.tokens) for ask in every)  # no padding
    assert len(read) == 12
    assert all(rows <= tokens <= rows + 3 for tokens, rows in zip(read[1:], going, strict=True))  # shapes come in fours


def test_waiting_asks_enter_as_others_leave(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    stops, every = set(range(1, 40)), asks(40)
    with passes(llama) as read:
        found = sampler(llama, tokenizer, *stops, max_rows=8).generate(
            every, max_new_tokens=40, temperature=1.0, seed=1
        )
    lengths = [len(rollout.tokens) for rollout in found]
    one_batch_after_another = sum(max(lengths[i : i + 8]) for i in range(0, 40, 8))
    assert len(read) < one_batch_after_another
    assert sum(read) < sum(len(ask.tokens) for ask in every) + 1.2 * sum(lengths)  # hardly a slot stands empty


def test_the_prompt_of_a_group_is_read_once(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    alone = asks(6, shortest=8)
    every = [replace(ask, number=6 * k + i) for k in range(4) for i, ask in enumerate(alone)]
    for max_rows in (128, 10):
        with passes(llama) as read:
            found = sampler(llama, tokenizer, max_rows=max_rows).generate(
                every, max_new_tokens=2, temperature=1.0, seed=0
            )
        prompts = sum(len(ask.tokens) for ask in alone)
        assert prompts <= sum(read) - len(every) <= prompts + 3 * len(read)  # beside one more token for each answer
        assert [rollout.prompt_tokens for rollout in found] == [ask.tokens for ask in every]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_is_as_it_was(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, precision: str) -> None:
    llama.set_attn_implementation("eager")
    prompt = torch.arange(2, 12)[None]
    before = llama(input_ids=prompt).logits
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        sampler(llama, tokenizer).generate(asks(3), max_new_tokens=4, temperature=1.0, seed=0)
        with pytest.raises(IndexError):  # a token that the model does not have
            sampler(llama, tokenizer).generate(
                [Ask(prompt=[], tokens=[VOCAB], number=0)], max_new_tokens=4, temperature=1.0, seed=0
            )
    assert llama.config._attn_implementation == "eager"
    after = llama(input_ids=prompt).logits
    assert torch.equal(after, before)
    after.sum().backward()  # and still learns
    assert all(weight.grad is not None for weight in llama.parameters())


def test_bfloat16_logp_is_the_trainers(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """The sampler's own casts are autocast's: equal but for what bfloat16 rounds off in attention."""
    with torch.autocast("cpu", torch.bfloat16):
        found = sampler(llama, tokenizer).generate(asks(8), max_new_tokens=20, temperature=1.0, seed=0)
    gaps: list[float] = []
    for rollout in found:
        tokens, start = torch.tensor([rollout.prompt_tokens + rollout.tokens]), len(rollout.prompt_tokens)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logp = llama(input_ids=tokens).logits[0, start - 1 : -1].float().log_softmax(-1)
        ours = torch.tensor(rollout.logp)
        gaps += (logp.gather(1, tokens[0, start:, None])[:, 0] - ours).abs().tolist()
        with torch.no_grad():
            exact = llama(input_ids=tokens).logits[0, start - 1 : -1].log_softmax(-1)
        assert not torch.allclose(exact.gather(1, tokens[0, start:, None])[:, 0], ours, atol=1e-4)  # it is bfloat16
    assert np.mean(gaps) < 0.02


def test_an_answer_may_end_on_its_last_token(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    (ask,) = asks(1)
    (free,) = sampler(llama, tokenizer).generate([ask], max_new_tokens=5, temperature=1.0, seed=0)
    last = free.tokens[-1]
    assert last not in free.tokens[:-1]
    (found,) = sampler(llama, tokenizer, last).generate([ask], max_new_tokens=5, temperature=1.0, seed=0)
    assert (found.tokens, found.finish) == (free.tokens, "stop")
    (first,) = sampler(llama, tokenizer, free.tokens[0]).generate([ask], max_new_tokens=5, temperature=1.0, seed=0)
    assert (first.tokens, first.text) == (free.tokens[:1], "")


class Parrot(LlamaForCausalLM):
    """Says a fixed sequence: its weights are there to be a model, its logits point at the script."""

    script: Sequence[int] = ()

    def forward(self, input_ids: Tensor, position_ids: Tensor, **_: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits = torch.full((1, 1, VOCAB), -50.0)
        logits[:, 0, self.script[int(position_ids[0, -1]) - 2]] = 50.0  # the prompt has three tokens
        return CausalLMOutputWithPast(logits=cast(torch.FloatTensor, logits))


def speak(tokenizer: PreTrainedTokenizerFast, text: str, *stops: int, decoding: Decoding = PLAIN) -> Rollout:
    parrot = Parrot(LlamaConfig(**LLAMA)).eval()
    parrot.script = cast(list[int], tokenizer(text, add_special_tokens=False)["input_ids"])
    ask = Ask(prompt=[], tokens=[5, 6, 7], number=0)
    (found,) = sampler(parrot, tokenizer, *stops).generate(
        [ask], max_new_tokens=len(parrot.script), temperature=1.0, seed=0, decoding=decoding
    )
    assert found.tokens == parrot.script[: len(found.tokens)]
    return found


def test_text_has_neither_special_tokens_nor_outer_spaces(tokenizer: PreTrainedTokenizerFast) -> None:
    for text, wanted in [
        (" the cat sat.\n<|end|>", "the cat sat."),
        ("\n\n the  cat \t<|end|>", "the  cat"),
        ("<|pad|>the<|pad|> dog<|end|>", "the dog"),
        ("<|end|>", ""),
        ("cut off here ", "cut off here"),
    ]:
        found = speak(tokenizer, text, END)
        assert found.text == wanted
        assert found.finish == ("stop" if "<|end|>" in text else "length")
        # White space and end stay among the tokens: that is what was sampled.
        assert tokenizer.decode(found.tokens) == text
    full_stop = cast(list[int], tokenizer(".", add_special_tokens=False)["input_ids"])[0]
    found = speak(tokenizer, "the cat sat. the dog", END, full_stop)
    assert found.text == "the cat sat"  # an end token is no part of the text


@pytest.mark.parametrize(
    ("text", "stop", "wanted", "said"),
    [
        ("the cat sat.\nUser: and the dog?", ("\nUser:",), "the cat sat.", "the cat sat.\nUser:"),
        ("the cat sat on the mat", ("dog", " sat"), "the cat", "the cat sat"),
        (" on the mat", (" on",), "", " on"),  # at the very beginning, its space included
        ("the caterpillar", ("cat",), "the", None),  # the token that completes it may say more
        ("numbers 0 1 2<|end|>", ("3",), "numbers 0 1 2", "numbers 0 1 2<|end|>"),
        ("the ☃ on the mat", ("☃",), "the", "the ☃"),  # of several tokens, none of which is a character
    ],
)
def test_a_stop_string_ends_an_answer(
    tokenizer: PreTrainedTokenizerFast, text: str, stop: tuple[str, ...], wanted: str, said: str | None
) -> None:
    found = speak(tokenizer, text, END, decoding=Decoding(stop=stop))
    assert (found.text, found.finish) == (wanted, "stop")
    if said is not None:
        assert tokenizer.decode(found.tokens) == said


def test_a_stop_string_that_is_not_said_changes_nothing(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    one, every = sampler(llama, tokenizer, *range(1, 30)), asks(12)
    free = one.generate(every, max_new_tokens=20, temperature=1.0, seed=0)
    longest = max(range(12), key=lambda i: len(free[i].text))
    stop = free[longest].text[4:6]
    found = one.generate(every, max_new_tokens=20, temperature=1.0, seed=0, decoding=Decoding(stop=(stop,)))
    assert free[longest].text != found[longest].text
    for before, after in zip(free, found, strict=True):
        assert after.tokens == before.tokens[: len(after.tokens)]
        assert stop not in after.text
        assert after.finish == "stop" if stop in before.text else after == before


# --------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_logp_is_that_of_what_was_drawn_from(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, temperature: float
) -> None:
    decoding = Decoding(top_k=30, top_p=0.9, min_p=0.01, repetition_penalty=1.5)
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.5)])
    if temperature:
        processors += [TemperatureLogitsWarper(temperature), TopKLogitsWarper(30), TopPLogitsWarper(0.9)]
        processors.append(MinPLogitsWarper(0.01))
    every = [*asks(6), *asks(3)]
    found = sampler(llama, tokenizer, END, max_rows=4).generate(
        every, max_new_tokens=16, temperature=temperature, seed=2, decoding=decoding
    )
    for rollout in found:
        tokens, start = torch.tensor([rollout.prompt_tokens + rollout.tokens]), len(rollout.prompt_tokens)
        with torch.no_grad():
            logits = llama(input_ids=tokens).logits[0]
        for i, logp in enumerate(rollout.logp):
            expected = processors(tokens[:, : start + i], logits[start + i - 1][None]).log_softmax(-1)
            assert logp == pytest.approx(float(expected[0, rollout.tokens[i]]), abs=1e-4)
            assert temperature or int(expected.argmax()) == rollout.tokens[i]
