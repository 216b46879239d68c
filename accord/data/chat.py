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


def pieces(tokenizer: PreTrainedTokenizerBase, example: Example, end: int) -> list[Piece]:
    """The rendered conversation, cut so that each answer with its end token is one piece; `end` is `end_of_turn`.

    Raises ModelError where the prompt is not a prefix of the whole: the model would be asked for something other than
    what it was trained on.
    """
    answers = [i for i, message in enumerate(example.messages) if message["role"] == "assistant"]
    taught = answers if example.train == "all" else answers[-1:]
    found: list[Piece] = []
    done = ""
    for turn in answers:
        prompt = render(tokenizer, example.messages[:turn], answering=True)
        whole = render(tokenizer, example.messages[: turn + 1], answering=False)
        if not whole.startswith(prompt) or not prompt.startswith(done):
            raise ModelError(
                "chat template",
                "a prompt is not a prefix of the conversation that goes on from it",
                f"the prompt ends in {prompt[-40:]!r}, the conversation goes {whole[max(0, len(prompt) - 40) :][:60]!r}",
                "use a template that renders earlier turns the same whatever follows",
            )
        # The template may go on after the end token (a newline, say): that belongs to the next prompt.
        rest = whole[len(prompt) :]
        token = str(tokenizer.convert_ids_to_tokens(end))
        at = rest.rfind(token)
        answer = rest[: at + len(token)] if at >= 0 else rest
        found.append(Piece(prompt[len(done) :], train=False))
        found.append(Piece(answer, train=turn in taught, end=at < 0))
        done = prompt + answer
    return found


def rows(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> list[Row]:
    """Tokens and train mask of each conversation, up to the end of its last trained answer."""
    end = end_of_turn(tokenizer)
    cut = [pieces(tokenizer, example, end) for example in examples]
    first = iter(encode(tokenizer, [parts[0].text for parts in cut if parts], first=True))
    later = iter(encode(tokenizer, [part.text for parts in cut for part in parts[1:]], first=False))
    found: list[Row] = []
    for parts in cut:
        row = Row(tokens=[], train=[])
        for i, part in enumerate(parts):
            tokens = next(later) if i else next(first)
            tokens = [*tokens, end] if part.end else tokens
            row.tokens += tokens
            row.train += [part.train] * len(tokens)
        found.append(row)
    return found


def prompts(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
    """The tokens of conversations that wait for an answer: exactly those before the answer in `rows`.

    Earlier answers are cut out the same way as there, so sampling continues what training has seen.
    """
    asked = [Example(messages=[*turns, {"role": "assistant", "content": "x"}], train="all") for turns in conversations]
    return [row.tokens[: _last_answer(row)] for row in rows(tokenizer, asked)]


def _last_answer(row: Row) -> int:
    """Where the last trained stretch begins."""
    start = len(row.train)
    while start and row.train[start - 1]:
        start -= 1
    return start


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, first: bool) -> list[list[int]]:
    """Tokens of pieces of text, without any special token that the text does not spell out.

    A piece inside a row is encoded behind an end token that is taken off again: tokenizers of the SentencePiece kind
    put a space before whatever begins a text.
    """
    if not texts:
        return []
    anchor = "" if first else str(tokenizer.eos_token)
    encoded = token_lists(tokenizer, [anchor + text for text in texts])
    return encoded if first else [tokens[1:] for tokens in encoded]


def answer_text(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """What sampled tokens say, without special tokens and outer white space."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()
