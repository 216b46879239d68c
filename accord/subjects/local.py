"""A model that is opened here: it answers, tells the likelihood of any text, and can be compared token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.data import chat, prepare
from accord.data.batch import Row, collate
from accord.data.records import Prompt
from accord.data.sources import Form
from accord.data.tokenizer import end_id, end_of_turn, load_tokenizer, pad_id, stop_ids, token_lists
from accord.engine import Engine
from accord.errors import DataError
from accord.model import context_of, load_config, load_policy
from accord.outputs import Roles
from accord.recipe import Sampling
from accord.sampler import Ask, Rollout, as_batch
from accord.sampler.local import LocalSampler
from accord.subjects import Answer
from accord.suites import Likelihoods, Question


@dataclass
class Local:
    """A policy on the device. `longest` is the most tokens that a prompt and its answer may have together."""

    name: str
    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    engine: Engine
    longest: int
    room: int  # of them for the prompt
    micro_tokens: int
    chunk: int = 1024  # a part ends with few rows in the batch, so that small parts cost speed
    decodes: bool = True

    @classmethod
    def open(
        cls, name: str, path: str, engine: Engine, sampling: Sampling, *, max_tokens: int | None, micro_tokens: int,
        where: str,
    ) -> Local:  # fmt: skip
        """The model of a folder or hub id, on the device."""
        tokenizer = load_tokenizer(path, where)
        model = engine.place(load_policy(path, tokenizer, where))
        context = context_of(load_config(path, where))
        longest = min(max_tokens or context, context)
        return cls(name, path, model, tokenizer, engine, longest, longest - sampling.max_new_tokens, micro_tokens)

    def asks(self, prompts: Sequence[Prompt], form: Form) -> list[Ask]:
        """Those that leave room for an answer."""
        tokens = chat.prompts(self.tokenizer, [prompt.prompt for prompt in prompts])
        return [
            Ask(prompt=prompt.prompt, tokens=read, number=i, group=i, meta=prompt.meta)
            for i, (prompt, read) in enumerate(zip(prompts, tokens, strict=True))
            if len(read) <= self.room
        ]

    def answer(self, asks: Sequence[Ask], sampling: Sampling, *, temperature: float, seed: int) -> list[Answer]:
        """One answer for each ask, in order; temperature 0 is greedy."""
        sampler = LocalSampler(self.model, self.tokenizer, stop_ids(self.tokenizer, self.path))
        rollouts = self.engine.generate(
            sampler, asks, max_new_tokens=sampling.max_new_tokens, temperature=temperature, seed=seed, decoding=sampling
        )
        return [Answer(rollout, len(rollout.tokens), rollout.finish == "stop") for rollout in rollouts]

    def likelihoods(self, questions: Sequence[Question]) -> list[Likelihoods]:
        """The summed log-probability of each option's tokens behind the rendered prompt, without the token that ends an
        answer; of options without a prompt that of the whole text. In float32. DataError where one is too long."""
        groups = [self._rows(question) for question in questions]
        for question, rows in zip(questions, groups, strict=True):
            if (most := max(map(len, rows))) > self.longest:
                said = f"a question takes {most} tokens and {self.name} reads {self.longest}"
                shown = prepare.show(question.prompt) or question.options[0][:90]
                raise DataError("questions", said, f"leave it out: {shown}")
        if not groups:
            return []
        logp = self.logps(groups)
        tokens = [sum(row.train) for rows in groups for row in rows]
        found: list[Likelihoods] = []
        at = 0
        for question in questions:
            end = at + len(question.options)
            found.append(Likelihoods(question, logp[at:end], tokens[at:end]))
            at = end
        return found

    def logps(self, groups: Sequence[Sequence[Row]]) -> list[float]:
        """The summed log-probability of the train tokens of each row, in nats; beginnings that a group shares are read once."""
        batch = collate([list(rows) for rows in groups], pad_id(self.tokenizer))
        batch.loose = True  # rows have a beginning in common and no more: a long group may be split
        roles = Roles(policy=self.model)
        out = self.engine.outputs(roles, batch, ["logp"], micro_tokens=self.micro_tokens, precise=True)
        return out.logp.double().sum(1).tolist()

    def kl(self, reference: Local, rollouts: Sequence[Rollout]) -> list[float] | None:
        """The exact KL of each answer from a reference, in nats, at temperature 1; None where the two do not share their
        tokens."""
        if self.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
            return None
        batch = as_batch(rollouts, pad_id(self.tokenizer), temperature=1.0)
        return self.engine.kl(self.model, reference.model, batch, micro_tokens=self.micro_tokens).sum(1).tolist()

    def text_rows(self, text: str) -> list[Row]:
        """Plain text as rows, read from the start token on, each token but that predicted once; windows overlap by one."""
        tokens = [self._start(), *token_lists(self.tokenizer, [text])[0], end_id(self.tokenizer)]
        width = self.longest
        windows = [tokens[i : i + width] for i in range(0, max(1, len(tokens) - 1), width - 1)]
        return [Row(window, [False] + [True] * (len(window) - 1)) for window in windows if len(window) > 1]

    def _rows(self, question: Question) -> list[Row]:
        """A row for each option; its tokens, and no others, are to be predicted."""
        if not question.prompt:
            read = token_lists(self.tokenizer, question.options)
            return [Row([self._start(), *tokens], [False] + [True] * len(tokens)) for tokens in read]
        options = question.options
        rows = prepare.answered(self.tokenizer, [question.prompt] * len(options), options)
        return [self._bare(row) for row in rows]

    def _bare(self, row: Row) -> Row:
        """A row without the token that ends the answer."""
        end = len(row) - (row.tokens[-1] == end_of_turn(self.tokenizer))
        return Row(row.tokens[:end], row.train[:end])

    def _start(self) -> int:
        """What stands before plain text: the token that begins one, or the one that ends the text before."""
        begins = self.tokenizer.bos_token_id
        return begins if isinstance(begins, int) else end_id(self.tokenizer)
