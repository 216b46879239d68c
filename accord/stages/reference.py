"""The reference's log-probs: computed when a batch first needs them, and kept in the cache for later runs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from accord import processes
from accord.data import cache
from accord.data.batch import collate, order, step_count
from accord.data.rows import Index, Rows
from accord.data.tokenizer import pad_id
from accord.model import load_policy
from accord.outputs import Roles
from accord.recipe import Preference
from accord.run import hardware
from accord.stages.check_models import model_print
from accord.stages.fit import Context

Known: TypeAlias = tuple[NDArray[np.float32], NDArray[np.bool_]]  # log-probs, and which blocks have theirs
LOGP, DONE = "ref_logp.npy", "done.npy"
GROWTH = 8  # each time that the reference is opened it does so many times more ahead than the time before


def of_training(context: Context, stage: Preference, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> Reference:
    """For rows that are trained on: computed batch by batch as the first pass goes, so training begins at once."""
    optim, count = stage.optim, len(rows)
    passes = order(count, optim.batch_size, seed=context.seed)
    first = np.array([i for batch in islice(passes, math.ceil(count / optim.batch_size)) for i in batch])
    steps = step_count(count, optim.batch_size, epochs=optim.epochs, steps=optim.steps)
    return Reference(context, stage, tokenizer, rows, order=first, size=optim.batch_size, last=steps)


def of_evaluation(context: Context, stage: Preference, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> Reference:
    """For rows that are held out: all at once."""
    every = np.arange(len(rows))
    found = Reference(context, stage, tokenizer, rows, order=every, size=64, last=len(rows))
    found.ready(every)
    return found


class Reference:
    """The log-prob of every token of some rows (`ref_logp` in `rows`, 0 outside the train mask) under a frozen policy.

    Groups are computed in blocks: `size` of them at a time in the given `order`, of which the first `last` blocks are wanted
    sooner or later. A block's rounding does not depend on when that is. The policy is in memory only while it is at work.
    """

    def __init__(
        self, context: Context, stage: Preference, tokenizer: PreTrainedTokenizerBase, rows: Rows, *,
        order: Index, size: int, last: int,
    ) -> None:  # fmt: skip
        self._context, self._stage, self._tokenizer = context, stage, tokenizer
        self._path = context.path(stage.reference or stage.model)
        self._order, self._size, self._last, self._ahead = order, size, last, 0
        self._block = np.empty(len(order), np.int64)  # [G], of each group
        self._block[order] = np.arange(len(order)) // size
        self._key = self._identity(rows) if cache.folder() else None
        found = cache.find("reference", self._key, _load) if self._key else None
        blocks = -(-len(order) // size)
        self._values, done = found or (np.zeros(len(rows.tokens), np.float32), np.zeros(blocks, np.bool_))
        self._done = np.logical_and.reduce(processes.gather(done))  # what one lacks all compute together
        self.rows = rows.with_tokens("ref_logp", self._values)

    def _identity(self, rows: Rows) -> list[object]:
        """All that the values depend on, down to their rounding."""
        arrays = hashlib.sha256()
        for array in (rows.tokens, rows.train, rows.row, rows.group, rows.chosen, self._order):
            arrays.update(np.ascontiguousarray(array).data)
        engine = self._context.engine
        machine = [engine.precision, engine.device.type, engine.threads, hardware().get("cpu"), processes.count()]
        return [model_print(self._path), arrays.hexdigest(), self._size, self._stage.optim.micro_tokens, machine]

    def ready(self, groups: Sequence[int] | Index) -> None:
        """Have the values of some groups, and on the way of some that come after them."""
        wanted = np.unique(self._block[groups])
        missing = wanted[~self._done[wanted]]
        if len(missing):
            later = np.flatnonzero(~self._done[: self._last])
            later = later[later > missing.max()][: self._ahead]
            self._ahead = max(1, self._ahead) * GROWTH
            self._compute([*missing, *later])

    def _compute(self, blocks: Sequence[int]) -> None:
        with torch.random.fork_rng(devices=[]):  # of which training may draw for dropout
            reference = load_policy(self._path, self._tokenizer, f"{self._context.where}.reference")
        roles, engine = Roles(policy=self._context.engine.place(reference, inner=True)), self._context.engine
        for block in blocks:
            rows = self.rows.select(self._order[block * self._size : (block + 1) * self._size])
            batch = collate(rows, pad_id(self._tokenizer))
            out = engine.outputs(roles, batch, ["logp"], micro_tokens=self._stage.optim.micro_tokens)
            self._values[rows.places()] = out.logp[batch.attend].numpy()
            self._done[block] = True
        if self._key and processes.first():
            cache.keep("reference", self._key, self._save)

    def _save(self, folder: Path) -> None:
        np.save(folder / LOGP, self._values)
        np.save(folder / DONE, self._done)


def _load(folder: Path) -> Known:
    return np.load(folder / LOGP, mmap_mode="c"), np.load(folder / DONE)  # changes to the mapped file stay in memory
