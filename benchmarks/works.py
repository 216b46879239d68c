"""What is compared: shapes of models, works, and the settings that both sides of a work are given."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["float32", "bfloat16"]
Method: TypeAlias = Literal["sft", "reward", "dpo", "grpo", "rloo", "ppo", "sample"]

BETA = 0.1  # of DPO
KL = 0.05  # weight of the KL of policy methods
GROUP = 4  # answers to a prompt, of GRPO and RLOO
LR = {"sft": 1e-4, "reward": 1e-4, "dpo": 1e-5, "grpo": 1e-6, "rloo": 1e-6, "ppo": 1e-6, "sample": 0.0}
SEED = 0


@dataclass(frozen=True)
class Size:
    """The shape of a decoder with tied embeddings."""

    name: str
    kind: Literal["llama", "gpt2", "qwen2"]
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocab: int
    cuda: bool = False  # too large for anything but a GPU
    context: int = 1024

    def weights(self, *, head: bool) -> int:
        """Numbers in the linear layers, with or without the LM head: what each token is multiplied with."""
        keys = self.width * self.kv_heads // self.heads
        attention = 2 * self.width * self.width + 2 * self.width * keys
        feed = (2 if self.kind == "gpt2" else 3) * self.width * self.feed_forward
        return self.layers * (attention + feed) + head * self.vocab * self.width


SIZES = {
    size.name: size
    for size in (
        Size("tiny", "llama", 4, 128, 4, 2, 352, 1024),
        Size("15m", "llama", 6, 384, 6, 2, 1024, 8192),
        Size("124m", "gpt2", 12, 768, 12, 12, 3072, 50257),
        Size("0.5b", "qwen2", 24, 896, 14, 2, 4864, 151936, cuda=True),
        Size("1.5b", "qwen2", 28, 1536, 12, 2, 8960, 151936, cuda=True),
    )
}


@dataclass(frozen=True)
class Side:
    """Who does a work: a name, and the module of `benchmarks.peers` that does it."""

    name: str
    worker: str
    needs: str = ""  # a package that may not be installed
    own_settings: bool = False  # as it comes, not as the others of the work: nothing to check beside the counts of rows


@dataclass(frozen=True)
class Work:
    """One thing to do: how many rows of which lengths, and who does it. Lengths are in tokens, from and to."""

    name: str
    method: Method
    batch: int  # rows, pairs or episodes of a step
    prompt: tuple[int, int]
    answer: tuple[int, int]
    ours: tuple[Side, ...]
    peers: tuple[Side, ...]
    says: str
    warmup: int = 2  # steps that are not measured
    steps: int = 8
    judge: Literal["", "function", "model"] = ""  # what rewards the answers

    def steps_of(self, size: Size) -> int:
        """Steps that are measured: fewer of the large model."""
        return self.steps if size.name != "124m" else max(1, self.steps // 2)


ACCORD, SAMPLER = Side("accord", "accord_train"), Side("accord", "accord_sample")
PAIRS = ((90, 150), (20, 150))
EPISODE = ((60, 60), (64, 64))


def _trl(worker: str) -> tuple[Side, ...]:
    return (Side("TRL", worker, needs="trl"),)


WORKS = {
    work.name: work
    for work in (
        Work("sft", "sft", 8, (40, 80), (20, 150), (ACCORD,),
             (*_trl("trl_sft"), Side("plain loop", "plain_sft")), "supervised fine-tuning"),
        Work("reward", "reward", 8, *PAIRS, (ACCORD,), _trl("trl_reward"), "a reward model on pairs"),
        Work("dpo", "dpo", 8, *PAIRS, (ACCORD,), _trl("trl_dpo"), "DPO, one pass over the pairs, their reference counted"),
        Work("dpo-long", "dpo", 8, (240, 240), (40, 80), (ACCORD,), _trl("trl_dpo"),
             "DPO with prompts four times as long as answers", steps=4),
        Work("grpo", "grpo", 16, *EPISODE, (ACCORD,), _trl("trl_group"), "GRPO, a function rewards", warmup=1, steps=4,
             judge="function"),
        Work("grpo-model", "grpo", 16, *EPISODE, (ACCORD,), _trl("trl_group"), "GRPO, a reward model rewards", warmup=1,
             steps=4, judge="model"),
        Work("rloo", "rloo", 16, *EPISODE, (ACCORD,), _trl("trl_group"), "RLOO, a function rewards", warmup=1, steps=4,
             judge="function"),
        Work("ppo", "ppo", 16, *EPISODE, (ACCORD, Side("accord, own defaults", "accord_train", own_settings=True)),
             (Side("TRL 1.12", "trl_ppo", needs="--trl-ppo"),),
             "PPO with a critic of its own, 4 passes in minibatches of 8", warmup=1, steps=2, judge="model"),
        Work("sample", "sample", 64, (40, 80), (64, 64), (SAMPLER,),
             (Side("transformers", "transformers_sample"),), "64 answers of 64 tokens", warmup=1, steps=2),
        Work("sample-varied", "sample", 64, (40, 80), (8, 256), (SAMPLER,),
             (Side("transformers", "transformers_sample"),), "64 answers of 8 to 256 tokens", warmup=1, steps=2),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What a worker is told. `folder` holds models and data of the size, `out` is the worker's own."""

    work: str
    size: str
    precision: Precision
    folder: str
    out: str
    steps: int  # measured
    warmup: int
    began: float = 0.0  # time.monotonic() when the process was started
    own_settings: bool = False
    threads: int = 0  # 0 leaves the number to the library
    trl_ppo: str = ""

    @property
    def of(self) -> Work:
        """The work."""
        return WORKS[self.work]

    @property
    def total(self) -> int:
        """All steps."""
        return self.warmup + self.steps

    @property
    def device(self) -> str:
        """Where it runs: small models on the CPU, wherever they are."""
        return "cuda" if SIZES[self.size].cuda else "cpu"

    @property
    def rows(self) -> Path:
        """The data, a row to a line."""
        return Path(self.folder) / f"{self.work}.jsonl"

    def model(self, name: str) -> Path:
        """The folder of a model: `policy`, `actor` (never ends an answer), `reward`, `chain` (ends where it is told)."""
        return Path(self.folder) / name

    def dump(self) -> str:
        """As one argument of a command line."""
        return json.dumps(asdict(self))
