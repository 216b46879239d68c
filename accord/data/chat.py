"""Conversations to tokens, with a mask that covers exactly what the assistant says and the token that ends each answer.

A conversation is rendered by the tokenizer's chat template and cut at the borders of the assistant's answers; the pieces
are tokenised one by one. So the tokens of a prompt are the same in training and in sampling, whatever follows them, and
no token straddles a border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from accord.data.batch import Row
from accord.data.records import Example, Message
from accord.data.tokenizer import end_of_turn, token_lists
from accord.errors import ModelError


@dataclass(frozen=True)
class Piece:
    """A stretch of rendered text. `end` appends the end token, for templates that put none after the last answer."""

    text: str
    train: bool
    end: bool = False


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, answering: bool) -> str:
    """The conversation as text; `answering` adds the header of the assistant's next answer."""
    try:
        turns = cast(list[dict[str, str]], list(messages))
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answering))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ModelError("chat template", f"refuses this conversation ({error})", f"its roles are: {roles}") from None


def pieces(tokenizer: PreTrainedTokenizerBase, example: Example, end: int, asked: dict[str, str]) -> list[Piece]:
    """The rendered conversation, cut so that each answer with its end token is one piece; `end` is `end_of_turn`.

    `asked` holds the prompts that have been rendered so far: several answers to one are common.
    Raises ModelError where the prompt is not a prefix of the whole: the model would be asked for something other than
    what it was trained on.
    """
    # A first turn of the assistant answers nothing: it belongs to the prompt.
    answers = [i for i, message in enumerate(example.messages) if i and message["role"] == "assistant"]
    taught = answers if example.train == "all" else answers[-1:]
    found: list[Piece] = []
    done = ""
    for turn in answers:
        turns = example.messages[:turn]
        prompt = asked.get(key := repr(turns)) or render(tokenizer, turns, answering=True)
        asked[key] = prompt
        whole = render(tokenizer, example.messages[: turn + 1], answering=False)
        for start, text in ((done, prompt), (prompt, whole)):
            if not text.startswith(start):
                raise _not_prefix(start, text)
        # The template may go on after the end token (a newline, say): that belongs to the next prompt. The answer may
        # spell the token out itself: looked for is the one behind it.
        rest = whole[len(prompt) :]
        token = str(tokenizer.convert_ids_to_tokens(end))
        said = example.messages[turn]["content"].strip()
        at = rest.find(token, max(0, rest.find(said)) + len(said))
        answer = rest[: at + len(token)] if at >= 0 else rest
        found.append(Piece(prompt[len(done) :], train=False))
        found.append(Piece(answer, train=turn in taught, end=at < 0))
        done = prompt + answer
    return found


def _not_prefix(start: str, text: str) -> ModelError:
    """Say where a prompt and the conversation that goes on from it part."""
    at = next((i for i, (a, b) in enumerate(zip(start, text, strict=False)) if a != b), min(len(start), len(text)))
    return ModelError(
        "chat template",
        "a prompt is not a prefix of the conversation that goes on from it",
        f"one goes {start[at : at + 40]!r}, the other {text[at : at + 40]!r}, after {text[max(0, at - 20) : at]!r}",
        "use a template that renders earlier turns the same whatever follows",
    )


def rows(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> list[Row]:
    """Tokens and train mask of each conversation, up to the end of its last trained answer."""
    end = end_of_turn(tokenizer)
    prompts: dict[str, str] = {}
    cut = [pieces(tokenizer, example, end, prompts) for example in examples]
    token = str(tokenizer.convert_ids_to_tokens(end))
    first = iter(encode(tokenizer, [parts[0].text for parts in cut if parts]))
    asked = iter(encode(tokenizer, [part.text for parts in cut for part in parts[2::2]], behind=token))
    said = iter(encode(tokenizer, [part.text for parts in cut for part in parts[1::2]], behind=_anchor(tokenizer)))
    found: list[Row] = []
    for parts in cut:
        row = Row(tokens=[], train=[])
        for i, part in enumerate(parts):
            tokens = next(said if i % 2 else asked if i else first)
            tokens = [*tokens, end] if part.end else tokens
            row.tokens += tokens
            row.train += [part.train] * len(tokens)
        found.append(row)
    return found


def prompts(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
    """The tokens of conversations that wait for an answer: exactly those before the answer in `rows`.

    Earlier answers are cut out the same way as there, so sampling continues what training has seen.
    """
    asked = [Example(messages=[*turns, {"role": "assistant", "content": "x"}], train="last") for turns in conversations]
    return [row.tokens[: answer_start(row)] for row in rows(tokenizer, asked)]


def answer_start(row: Row) -> int:
    """Where the last trained stretch begins."""
    start = len(row.train)
    while start and row.train[start - 1]:
        start -= 1
    return start


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, behind: str = "") -> list[list[int]]:
    """Tokens of pieces of text, without any special token that the text does not spell out.

    A piece inside a row is encoded behind some text whose tokens are taken off again: tokenizers of the SentencePiece
    kind put a space before whatever begins a text. A prompt stands behind the end token, as in the conversation.
    """
    if not texts:
        return []
    distinct = list(dict.fromkeys(texts))  # the prompt of several answers is encoded once
    encoded = token_lists(tokenizer, [behind + text for text in distinct])
    skip = len(token_lists(tokenizer, [behind])[0]) if behind else 0
    tokens_of = {text: tokens[skip:] for text, tokens in zip(distinct, encoded, strict=True)}
    return [tokens_of[text] for text in texts]


def _anchor(tokenizer: PreTrainedTokenizerBase) -> str:
    """What an answer is encoded behind: the end token, unless it changes the text that follows it.

    Some end tokens take white space with them, and some tokenizers (Llama 2 and its kin) put a space behind every
    special token; there it is a character that no token reaches across.
    """
    for anchor in (str(tokenizer.eos_token), *"\n\x1f\x02"):
        pieces = encode(tokenizer, ["x", " x", "\nx"], behind=anchor)
        whole = [str(tokenizer.decode(token_lists(tokenizer, [anchor])[0] + tokens)) for tokens in pieces]
        bare = str(tokenizer.decode(token_lists(tokenizer, [anchor])[0]))
        if [text.removeprefix(bare) for text in whole] == ["x", " x", "\nx"]:
            return anchor
    return str(tokenizer.eos_token)


def answer_text(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], *, until: Sequence[str] = ()) -> str:
    """What sampled tokens say up to the first of the strings `until`, without special tokens and outer white space."""
    text = str(tokenizer.decode(list(tokens), skip_special_tokens=True))
    ends = [text.find(stop) for stop in until if stop in text]
    return text[: min(ends, default=len(text))].strip()
