"""What several tests share: a tiny tokenizer, tiny models, and where the real data is."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the hub
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny models are faster on one thread, and two test processes fit two cores

os.environ["ACCORD_CACHE"] = tempfile.mkdtemp(prefix="accord-tests-")  # never the user's own

import torch
from accelerate.state import AcceleratorState
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from accord.data.records import Text
from accord.engine import Engine
from accord.recipe import Compute
from accord.stages.pretrain import train_tokenizer

atexit.register(shutil.rmtree, os.environ["ACCORD_CACHE"], ignore_errors=True)
DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")

WORDS = [
    "the cat sat on the mat and looked at the dog",
    "a user asks a question and the assistant answers it",
    "User: hello there\nAssistant: hi, how can I help you today?",
    "numbers 0 1 2 3 4 5 6 7 8 9 and signs . , ! ? : ; ' \" ( ) are there too",
]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 320 tokens with pad and end tokens, as a pretrain stage makes it, without chat template."""
    made = train_tokenizer([Text(text=text) for text in WORDS * 3], 320)
    made.chat_template = None  # as most base models come
    return made


def tiny_llama(
    vocab: int = 320, *, seed: int = 0, layers: int = 2, width: int = 32, context: int = 128
) -> LlamaForCausalLM:
    """A Llama of two layers with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def scorer(seed: int) -> LlamaForSequenceClassification:
    """A Llama of two layers with a scalar head, random."""
    trunk = tiny_llama(seed=seed)
    trunk.config.num_labels = 1
    made = LlamaForSequenceClassification(trunk.config).eval()
    made.model = trunk.model
    return made


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model folder as the hub would give it: no chat template yet."""
    folder = tmp_path_factory.mktemp("base") / "model"
    tiny_llama(context=512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def fresh() -> Iterator[None]:
    """No accelerator yet, as in a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def engine(fresh: None) -> Engine:
    """The engine on the CPU in float32."""
    return Engine(Compute(device="cpu", precision="float32"))
