"""What a sampler computes and holds, counted by letting the sampler itself begin answers and go on with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from accord import attention
from accord.plan.counting import Counter, Work
from accord.plan.shapes import Conditions, Pass, Shape, at_depth
from accord.sampler import PLAIN, Ask
from accord.sampler.answers import Answers
from accord.sampler.cache import Slots
from accord.sampler.lean import ready
from accord.sampler.local import Decoder, LocalSampler
from accord.sampler.padded import left_padded, read


def answers(shape: Shape, asks: Sequence[Ask], most: int, under: Conditions) -> Pass:
    """One call of a sampler in one process: answers of `most` tokens to all asks.

    Counted are the beginning of as many as are answered side by side, and the step in the middle, which is an average one.
    """
    some, longest = asks[: LocalSampler.max_rows], max(len(ask.tokens) for ask in asks)
    times = len(asks) / len(some)
    lean = shape.config.model_type in attention.KNOWN

    def count(model: PreTrainedModel) -> Pass:
        counter = Counter(model)
        with torch.no_grad(), under.entered(), counter:
            return (_lean if lean else _padded)(model, _Parts(counter), drawn(some, most), longest + most, times)

    lengths = tuple((ask.tokens[0], len(ask.tokens)) for ask in some)
    return at_depth(shape, ("answers", lengths, longest, most, times, under), count)


def drawn(asks: Sequence[Ask], most: int) -> Answers:
    """Answers that nobody reads: no token ends them, and their text is never asked for."""
    silent = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    return Answers(
        asks, silent, {0}, max_new_tokens=most, temperature=1.0, seed=0, decoding=PLAIN, device=torch.device("cpu")
    )


class _Parts:
    """The parts of a call, one after the other: the work of each, and the most bytes that lived for a moment in any."""

    def __init__(self, counter: Counter) -> None:
        self.counter, self.working = counter, 0.0

    def of(self, run: Callable[[], object]) -> Work:
        """The work of one part. What it returns is let go."""
        before, self.counter.peak = self.counter.work, self.counter.alive
        run()
        self.working = max(self.working, self.counter.peak - self.counter.alive)
        return self.counter.work + before * -1.0


def _lean(model: PreTrainedModel, parts: _Parts, answers: Answers, room: int, times: float) -> Pass:
    """Of an architecture that the sampler knows: the weights made ready, prompts read, a token for each row."""
    most = answers.limit
    with ready(model) as (forward, dtype):
        prepared = parts.counter.work
        decoder = Decoder(forward, answers, Slots(len(answers.asks), dtype), model)
        begun = parts.of(decoder.fill)
        decoder.steps = most // 2
        parts.of(lambda: decoder.slots.grow(decoder.steps + max(decoder.behind) + 1, len(decoder.held)))
        step = parts.of(decoder.go_on)
        parts.of(lambda: decoder.slots.grow(room, len(decoder.held)))
        return Pass(prepared + (begun + step * (most - 1)) * times, parts.counter.alive, parts.working)


def _padded(model: PreTrainedModel, parts: _Parts, answers: Answers, room: int, times: float) -> Pass:
    """Of any other: transformers' own cache."""
    most, of = answers.limit, torch.arange(len(answers.asks))
    half = max(most // 2, 2)
    cache = DynamicCache(config=model.config)
    tokens, attend = left_padded([ask.tokens for ask in answers.asks], model.device)
    begun = parts.of(lambda: answers.take(read(model, tokens, attend, cache), of))
    longer = torch.ones(len(of), attend.shape[1] + half, dtype=torch.int64)
    read(model, longer[:, attend.shape[1] : -1], longer[:, :-1], cache)  # what is said until the middle
    step = parts.of(lambda: answers.take(read(model, longer[:, -1:], longer, cache), of))
    kept = parts.counter.alive * room / longer.shape[1]
    return Pass((begun + step * (most - 1)) * times, kept, parts.working)
