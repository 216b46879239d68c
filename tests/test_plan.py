"""What a plan says, held to plain transformers, PyTorch's own counter of operations, and a run's real memory."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from accord.data.batch import Batch, Row, collate
from accord.data.packed import pack
from accord.data.prepare import Asked
from accord.data.records import Prompt
from accord.errors import RecipeError
from accord.model import narrow
from accord.outputs import Roles
from accord.plan import Plan, StagePlan, plan
from accord.plan.answering import answers
from accord.plan.counting import Work
from accord.plan.machines import Machine, bytes_of, named
from accord.plan.shapes import Conditions, Shape, compares, learns, looks
from accord.plan.sketch import share
from accord.plan.sketch import some as some_of
from accord.plan.stages import answered
from accord.recipe import Lora
from accord.recipe_file import load
from accord.sampler import Ask
from accord.sampler.local import LocalSampler

ROOT = Path(__file__).parents[1]
PLAIN = Conditions("float32", fused=False)
LLAMA = LlamaConfig(
    vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None,
    eos_token_id=1,
)  # fmt: skip
GPT2 = GPT2Config(vocab_size=320, n_embd=64, n_layer=4, n_head=4, n_positions=256)
GPT2.pad_token_id = 0
NEOX = GPTNeoXConfig(  # an architecture whose tokens are not packed
    vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
    max_position_embeddings=256, pad_token_id=0, bos_token_id=None, eos_token_id=1,
)  # fmt: skip
BOTH = pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])


def rows(count: int, length: int) -> Batch:
    """Rows of which the second half is trained."""
    half = length // 2
    return collate([[Row([5 + i] * length, [False] * half + [True] * (length - half))] for i in range(count)], 0)


@contextmanager
def saving(weights: set[int]) -> Iterator[dict[int, int]]:
    """The bytes of every storage that autograd saves, but for those of weights, by where it is."""
    saved: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield saved


# ---------------------------------------------------------------------------------------------------- bytes, operations


def test_weights_of_well_known_models():
    assert Shape(GPT2Config()).weights == 124_439_808 * 4  # as OpenAI's smallest has them
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(LLAMA)
    assert Shape(LLAMA).weights == Shape(LLAMA).trained == 4 * sum(x.numel() for x in plain.parameters())


def test_an_adapter_has_r_times_in_and_out_of_each_layer():
    layers = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]  # q, k, v, o, gate, up, down
    assert Shape(LLAMA, lora=Lora(r=8)).trained == 4 * 4 * 8 * sum(a + b for a, b in layers)


@BOTH
def test_operations_are_those_of_plain_transformers(config: PretrainedConfig):
    """One row, no longer than a block of attention, so that both look at the whole square."""
    batch = rows(1, 48)
    plain, head = AutoModel.from_config(config, attn_implementation="eager").eval(), torch.randn(64, 1)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        plain(batch.tokens).last_hidden_state @ head
    with FlopCounterMode(display=False) as both:
        (plain(batch.tokens).last_hidden_state @ head.requires_grad_()).sum().backward()
    shape, again = Shape(config, scorer=True), 2 * 48 * 64  # a classifier of transformers runs its head too
    assert looks(shape, batch, ["score"], PLAIN).work.float32 == forward.get_total_flops() + again
    assert learns(shape, batch, ["score"], PLAIN).work.float32 == both.get_total_flops() + again


@BOTH
def test_an_lm_head_reads_train_tokens_alone_and_again_backwards(config: PretrainedConfig):
    """Logits twice forwards, then the gradients of hidden states and weights: four products of train tokens and vocabulary.

    Behind the last layer's attention the other half of the tokens is spared, forwards and twice backwards."""
    batch = rows(2, 40)
    trunk = learns(Shape(config, scorer=True), batch, ["score"], PLAIN).work.float32 - 4 * 2 * 80 * 64
    policy = learns(Shape(config), batch, ["logp"], PLAIN).work.float32
    one = 2 * 64 * 320  # transformers' own head, which is let run at one token
    behind = 64 * 64 + (3 * 64 * 128 if config is LLAMA else 8 * 64 * 64)  # weights
    assert policy - trunk == 4 * 2 * 40 * 64 * 320 + one - 3 * 2 * 40 * behind


@pytest.mark.parametrize("learning", [1, 2, 3])
@BOTH
def test_below_the_layers_that_learn_nothing_runs_backwards(config: PretrainedConfig, learning: int):
    """Operations, and what the forward pass keeps, of a real model of four layers."""
    batch, shape = rows(2, 40), Shape(config, scorer=True, learning=learning)
    model = shape.made().to_empty(device="cpu")
    weights = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    with FlopCounterMode(display=False) as counted, saving(weights) as saved, PLAIN.entered():
        scores = Roles(scorer=model)(batch, ["score"])["score"]
        scores.sum().backward()
    found = learns(shape, batch, ["score"], PLAIN)
    assert found.work.float32 == counted.get_total_flops()
    assert found.kept == pytest.approx(sum(saved.values()), rel=0.05)
    every = replace(shape, learning=None)
    layer = every.weights - Shape(of_layers(config, 3), scorer=True).weights
    assert shape.trained == pytest.approx(layer * learning, rel=0.02)  # and a norm, and the head
    assert looks(shape, batch, ["score"], PLAIN) == looks(every, batch, ["score"], PLAIN)


def test_other_architectures_read_padding_too():
    batch = collate([[Row([5] * n, [False] * 8 + [True] * (n - 8))] for n in (16, 40)], 0)
    plain = AutoModel.from_config(NEOX, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as trunk, torch.no_grad():
        plain(batch.tokens)
    head = 2 * int(batch.train.sum()) * 64 * 320
    assert looks(Shape(NEOX), batch, ["logp"], PLAIN).work.float32 == trunk.get_total_flops() + head


def test_a_kl_reads_the_heads_of_both_models():
    """It holds the logits of both, their logarithms and their difference at once, where log-probs hold a chunk and its copy."""
    batch = rows(4, 200)
    kl, alone = compares(Shape(LLAMA), Shape(LLAMA), batch, PLAIN), looks(Shape(LLAMA), batch, ["logp"], PLAIN)
    assert kl.work.float32 == 2 * alone.work.float32
    assert kl.working > 5 * 4 * int(batch.train.sum()) * 320 > alone.working / 2


@BOTH
def test_bfloat16_and_float32_work_are_told_apart(config: PretrainedConfig):
    batch = rows(2, 40)
    low, high = (
        learns(Shape(config), batch, ["logp"], Conditions(kind, fused=False)) for kind in ("bfloat16", "float32")
    )
    assert low.work.bfloat16 == pytest.approx(high.work.float32, rel=0.01)  # Llama's angles stay in float32
    assert high.work.bfloat16 == 0
    assert low.kept < high.kept


@pytest.mark.parametrize("train", [None, Lora()], ids=["all", "lora"])
@BOTH
def test_what_a_forward_pass_keeps_is_what_autograd_saves(config: PretrainedConfig, train: Lora | None):
    """Counted with real numbers, in all four layers. What is saved twice or is a weight counts once, or not at all."""
    batch = rows(3, 100)
    model = Shape(config, lora=train).made().to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for weight in [*model.parameters(), *model.buffers()]:
            weight.normal_()
    weights = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    with saving(weights) as saved:
        out = Roles(policy=model)(batch, ["logp"])
    assert learns(Shape(config, lora=train), batch, ["logp"], PLAIN).kept == pytest.approx(
        sum(saved.values()), rel=0.03
    )
    assert out["logp"].requires_grad


def test_fused_attention_keeps_no_probabilities():
    batch = rows(4, 200)
    blocks, fused = (learns(Shape(GPT2), batch, ["logp"], Conditions("float32", fused=on)).kept for on in (False, True))
    # Of 4 layers, 4 rows and 4 heads; blocks of 64 queries see 64, 128, 192 and 200 keys.
    probabilities = 4 * 4 * 4 * 4 * (64 * (64 + 128 + 192) + 8 * 200)
    assert blocks - fused == pytest.approx(probabilities, rel=0.1)


def of_layers(config: PretrainedConfig, count: int) -> PretrainedConfig:
    changed = copy.deepcopy(config)
    changed.num_hidden_layers = count
    return changed


def asks(*lengths: int) -> list[Ask]:
    return [Ask(prompt=[], tokens=[5 + i] * length, number=i) for i, length in enumerate(lengths)]


def times_of_its_output(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Operations of oneDNN's product, which PyTorch's counter does not know."""
    return 2 * math.prod(x) * weight[0]


def attended(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object) -> int:
    """Operations of attention on a CPU, which it does not know either."""
    return sdpa_flop_count(query, key, value)


@pytest.mark.parametrize(
    ("config", "train"),
    [(LLAMA, None), (GPT2, None), (LLAMA, Lora(r=8)), (NEOX, None)],
    ids=["llama", "gpt2", "lora", "neox"],
)
def test_a_sampler_is_counted_as_it_runs(
    config: PretrainedConfig, train: Lora | None, tokenizer: PreTrainedTokenizerFast
):
    """A real call with all its steps, in which every row has a slot, by PyTorch's own counter."""
    model = Shape(config, lora=train).made().to_empty(device="cpu").requires_grad_(False)
    model.tie_weights()
    with torch.no_grad():
        for weight in [*model.parameters(), *model.buffers()]:
            weight.normal_(0, 0.02)
    known = {
        torch.ops.mkldnn._linear_pointwise: times_of_its_output,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attended,
    }
    asked = asks(*[20] * 3, *[26] * 3)
    with FlopCounterMode(display=False, custom_mapping=known) as ran:
        LocalSampler(model, tokenizer, set()).generate(asked, max_new_tokens=24, temperature=1.0, seed=0)
    assert answers(Shape(config, lora=train), asked, 24, PLAIN).work.float32 == pytest.approx(
        ran.get_total_flops(), rel=0.02
    )


def test_a_sampler_asks_for_fewer_operators_than_transformers():
    """Lean, a layer has some 30 in every step; of a layer of transformers' own more than twice as many were counted."""
    more, less = (answers(Shape(of_layers(LLAMA, n)), asks(20, 20), 100, PLAIN).work.calls for n in (4, 3))
    assert 20 * 100 < more - less < 60 * 100


@pytest.mark.parametrize(("precision", "size"), [("float32", 4), ("bfloat16", 2)])
def test_a_sampler_holds_keys_values_and_a_copy_of_the_weights(precision: str, size: int):
    """Slots have room for the longest prompt and its answer, in steps of 32 tokens."""
    linear = 4 * (64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 128) + 320 * 64
    slots = 4 * 2 * 30 * (2 * 16) * 96  # layers; keys and values; rows; heads; tokens
    held = answers(Shape(LLAMA), asks(*[20] * 29, 40), 50, Conditions(precision, fused=False)).kept
    assert held == pytest.approx(size * (slots + linear), rel=0.03)  # beside them: what is drawn


def test_transformers_cache_holds_as_many_tokens_as_there_are():
    held = answers(Shape(NEOX), asks(*[20] * 30), 60, PLAIN).kept
    assert held == pytest.approx(4 * 4 * 2 * 30 * 64 * 80, rel=0.03)


@BOTH
def test_checkpointing_keeps_less_and_computes_layers_once_more(config: PretrainedConfig):
    """Up to a third of the products of all layers on top, and of the layers little more than their inputs is kept."""
    batch = rows(4, 60)
    plain, again = (
        learns(Shape(config, scorer=True), batch, ["score"], Conditions("float32", fused=False, checkpointing=on))
        for on in (False, True)
    )
    assert again.kept < 0.35 * plain.kept
    # PyTorch stops before the last products of a layer, which nothing in the backward pass reads.
    assert 1.2 < again.work.float32 / plain.work.float32 < 4 / 3


# ------------------------------------------------------------------------------------------------------------- machines


def test_named_machines():
    assert (named("h100x8").devices, named("h100").bfloat16, named("a100-40g").memory) == (8, 989e12, 40e9)
    assert named("cpu16").memory == 16 * named("cpu1").memory
    for wrong in ("h100x0", "h100x", "v100", "cpu"):
        with pytest.raises(RecipeError, match="is not in the table; known: h200, h100"):
            named(wrong)


def test_amounts_of_memory():
    assert bytes_of("24GiB", "--memory") == 24 * 2**30
    assert bytes_of("1.5 TB", "--memory") == 1.5e12
    for wrong in ("24", "GiB", "1.2.3GiB", "24 apples"):
        with pytest.raises(RecipeError, match=f"'{wrong}' is no amount of memory; write it as 24GiB"):
            bytes_of(wrong, "--memory")


def test_a_gpu_hides_the_starting_of_operators_behind_its_work():
    work = Work(float32=10.0, bfloat16=40.0, operands=3.0, moved=8.0, calls=3.0)
    machine = Machine("m", 1.0, float32=5.0, bfloat16=20.0, bandwidth=4.0, feeding=4.0, source="", call=2.0)
    assert machine.seconds(work) == 2 + 2 + 8 / 4  # computing; less than that, 3 x 2, is spent on starting
    assert replace(machine, gpu=False).seconds(work) == 2 + 2 + 3 / 4 + 8 / 4 + 3 * 2
    assert machine.seconds(replace(work, operands=100.0)) == 25 + 8 / 4  # products wait for memory


# -------------------------------------------------------------------------------------------------------------- recipes

RECIPE = """
name = "planned"
compute = { device = "cpu", threads = 1, precision = "float32" }
[stage.sft]
kind = "sft"
model = "BASE"
data = "sft.jsonl"
optim = { steps = 3, batch_size = 8, micro_tokens = 512 }
[stage.reward]
kind = "reward"
model = "@sft"
data = "pairs.jsonl"
ensemble = 2
optim = { steps = 3, batch_size = 8, micro_tokens = 512 }
[stage.ppo]
kind = "policy"
model = "@sft"
data = "pairs.jsonl"
rewards = { "@reward" = 1 }
rollout = { batch_size = 8, max_new_tokens = 32 }
optim = { steps = 2, batch_size = 8, micro_tokens = 256 }
[stage.dpo]
kind = "preference"
model = "@sft"
data = "pairs.jsonl"
optim = { steps = 3, batch_size = 8, micro_tokens = 512 }
[stage.best]
kind = "select"
model = "@dpo"
data = "pairs.jsonl"
rewards = { "@reward" = 1 }
n = 2
sampling = { max_new_tokens = 32 }
[stage.again]
kind = "sft"
model = "@dpo"
data = "@best"
optim = { steps = 3, batch_size = 8, micro_tokens = 512 }
[stage.evaluate]
kind = "evaluate"
models = { sft = "@sft", ppo = "@ppo", dpo = "@dpo" }
data = "pairs.jsonl"
rewards = { "@reward" = 1 }
sampling = { max_new_tokens = 32 }
"""
WIDE = LlamaConfig(
    vocab_size=320, hidden_size=512, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8,
    num_key_value_heads=8, max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None,
    eos_token_id=1,
)  # fmt: skip
MB = 2**20


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A recipe of every kind of stage on a model of ten million weights, with its data."""
    here = tmp_path_factory.mktemp("plan")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(WIDE).save_pretrained(here / "base")
    tokenizer.save_pretrained(here / "base")
    (here / "recipe.toml").write_text(RECIPE.replace("BASE", str(here / "base")))
    asked = [f"the cat {i} asks the dog " + "and looks at the mat " * (i % 5) for i in range(40)]
    sft = [{"prompt": prompt, "completion": "the dog answers " * (1 + i % 4)} for i, prompt in enumerate(asked)]
    pairs = [
        {"prompt": prompt, "chosen": "sat on the mat " * (1 + i % 3), "rejected": "no"}
        for i, prompt in enumerate(asked)
    ]
    for name, table in (("sft", sft), ("pairs", pairs)):
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return here / "recipe.toml"


@pytest.fixture
def some(recipe: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    """The stages from one to before another, on the base model."""

    def cut(first: str, end: str) -> Path:
        whole = recipe.read_text().replace('"@sft"', f'"{recipe.parent}/base"')
        head, _, rest = whole.partition("[stage.sft]")
        chosen = rest[rest.index(f"[stage.{first}]") : rest.index(f"[stage.{end}]")]
        made = tmp_path / "some.toml"
        made.write_text((head + chosen).replace('"pairs.jsonl"', f'"{recipe.parent}/pairs.jsonl"'))
        return made

    return cut


def planned(recipe: Path, *settings: str, machine: str = "cpu8", memory: float | None = None) -> Plan:
    return plan(
        load(recipe, list(settings)), named(machine), lambda more: load(recipe, [*settings, *more]), memory=memory
    )


def stages(of: Plan) -> dict[str, StagePlan]:
    return {stage.name: stage for stage in of.stages}


def test_models_of_earlier_stages_have_the_shape_of_what_they_grew_from(recipe: Path, fresh: None):
    weights = 4 * sum(x.numel() for x in AutoModelForCausalLM.from_config(WIDE).parameters())
    head = 4 * 512
    found = stages(planned(recipe))
    of = {name: stage.phase for name, stage in found.items()}
    assert list(found) == ["sft", "reward", "ppo", "dpo", "best", "again", "evaluate"]
    for name, trained, frozen in (
        ("sft", weights, 0),  # its answers are those of a model alone
        ("reward", weights + head, 0),
        ("ppo", 2 * weights + head, weights + 2 * (weights + head)),  # with a critic; a reference, two members
        ("dpo", weights, 0),
        ("best", 0, weights + 2 * (weights + head)),
        ("again", weights, 0),
        ("evaluate", 0, 3 * weights + 2 * (weights + head)),
    ):
        assert (of[name].weights, of[name].frozen, of[name].optimizer) == (trained, frozen, 2 * trained), name
    assert of["sft"].gradients == weights
    assert of["best"].cache > 0
    answering = {"sft", "ppo", "best", "again", "evaluate"}
    assert {name for name, stage in found.items() if stage.parts.get("rollout", 0) > 0} == answering
    assert "update" not in found["evaluate"].parts
    assert found["evaluate"].parts["perplexity"] > 0  # of the chosen answers
    assert all(stage.seconds > 0 and stage.fits for stage in found.values())


def test_models_that_are_only_read_are_held_in_bfloat16(recipe: Path, fresh: None):
    model = AutoModelForCausalLM.from_config(WIDE)
    narrow(model, torch.bfloat16)
    low, head = sum(x.nbytes for x in model.parameters()), 2 * 512
    found = stages(planned(recipe, "compute.precision=bfloat16"))
    whole = Shape(WIDE).weights
    assert low < 0.6 * whole
    assert found["ppo"].phase.frozen == low + 2 * (low + head)  # the reference, two members
    assert found["evaluate"].phase.frozen == 3 * whole + 2 * (low + head)


@pytest.mark.parametrize(("count", "times"), [(10, 1), (64, 1), (80, 2), (64 * 20, 20)])
def test_a_few_batches_stand_for_all(count: int, times: int):
    """Also where the last one is smaller, or the only one."""
    batches = some_of([[Row([5, 6], [False, True])] * 2] * count, 64, seed=0)
    assert len(batches) == min(times, 16)
    assert share(batches, count) == times


def test_what_answers_to_a_prompt_have_in_common_is_the_prompt():
    record = Prompt(prompt=[{"role": "user", "content": "a"}])
    batch = answered([Asked(record.prompt, [7] * length, {}, record) for length in (5, 3)], 6, 4)
    assert pack(batch).tokens.numel() == 5 + 3 + 2 * 4 * 6
    assert batch.train.sum(1).tolist() == [6] * 8


def test_adapters_share_one_copy_of_the_weights(some: Callable[[str, str], Path], fresh: None):
    adapter = "{ r = 4 }"
    found = stages(planned(some("reward", "dpo"), *(f"stage.{name}.lora={adapter}" for name in ("reward", "ppo"))))
    whole, low = Shape(WIDE).weights, Shape(WIDE, lora=Lora(r=4)).trained
    ppo = found["ppo"].phase
    assert ppo.weights == whole + low + low + 4 * 512  # policy and critic, which has a head
    assert ppo.optimizer == 2 * (2 * low + 4 * 512)
    assert ppo.frozen == 0  # the reference and two members are views of the policy; their adapters are not counted


def test_of_a_critic_that_learns_in_part_less_is_held(some: Callable[[str, str], Path], fresh: None):
    only = some("reward", "dpo")
    own, part = (stages(planned(only, *more))["ppo"] for more in ([], ["stage.ppo.params.critic_layers=1"]))
    still = 3 * (Shape(WIDE).weights - Shape(of_layers(WIDE, 3)).weights) + 4 * 320 * 512  # layers, embeddings
    assert part.phase.weights == own.phase.weights
    assert part.phase.optimizer == own.phase.optimizer - 2 * still
    assert own.peak - part.peak == pytest.approx(3 * still, rel=0.05)
    assert part.parts["update"] < 0.9 * own.parts["update"]


def test_a_critic_on_the_trunk_has_no_weights_of_its_own(some: Callable[[str, str], Path], fresh: None):
    only = some("reward", "dpo")
    own, shared = (stages(planned(only, f"stage.ppo.params.critic={critic}"))["ppo"] for critic in ("policy", "trunk"))
    whole, head = Shape(WIDE).weights, 4 * 512
    assert (own.phase.weights, shared.phase.weights) == (2 * whole + head, whole)
    assert (own.phase.optimizer, shared.phase.optimizer) == (2 * (2 * whole + head), 2 * whole)
    assert own.phase.frozen == shared.phase.frozen
    assert own.peak - shared.peak > 3 * whole  # or 4, where the peak of either has gradients
    assert shared.parts["update"] < 0.7 * own.parts["update"]  # one trunk is read, not two


def test_a_recipe_with_an_architecture_that_is_not_packed(
    some: Callable[[str, str], Path], tmp_path: Path, tokenizer: PreTrainedTokenizerFast, fresh: None
):
    AutoModelForCausalLM.from_config(NEOX).save_pretrained(tmp_path / "neox")
    tokenizer.save_pretrained(tmp_path / "neox")
    (tmp_path / "short.py").write_text("def short(rollout):\n    return -len(rollout.tokens)\n")
    settings = f"stage.ppo.model={tmp_path}/neox", f'stage.ppo.rewards={{ "{tmp_path}/short.py:short" = 1 }}'
    found = stages(planned(some("ppo", "dpo"), *settings))
    weights = 4 * sum(x.numel() for x in AutoModelForCausalLM.from_config(NEOX).parameters())
    head = 4 * 320 * 64  # of the language model; the critic has one number in its place
    assert found["ppo"].phase.weights == 2 * weights - head + 4 * 64


def test_a_model_from_scratch_is_planned_with_a_tokenizer_of_its_own(recipe: Path, tmp_path: Path, fresh: None):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and looked at the dog\n" * 200)
    made = tmp_path / "made.toml"
    made.write_text(
        'name = "made"\n[stage.base]\nkind = "pretrain"\ndata = "text.txt"\n'
        "shape = { layers = 1, width = 32, heads = 2, feed_forward = 64, vocab = 270, context = 32 }\n"
        f'[stage.sft]\nkind = "sft"\nmodel = "@base"\ndata = "{recipe.parent}/sft.jsonl"\ntruncate = "cut"\n'
    )
    found = stages(planned(made))
    assert (
        found["base"].phase.weights == found["sft"].phase.weights == 4 * (270 * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32)
    )


def test_a_smaller_token_budget_takes_less_memory(some: Callable[[str, str], Path], fresh: None):
    only = some("dpo", "best")
    large, small = (stages(planned(only, f"stage.dpo.optim.micro_tokens={n}"))["dpo"] for n in (512, 128))
    assert small.phase.activations < 0.5 * large.phase.activations
    assert small.phase.weights == large.phase.weights


def test_several_processes_hold_buckets_of_gradients_and_share_the_work(some: Callable[[str, str], Path], fresh: None):
    only = some("dpo", "best")
    one, two = (stages(planned(only, f"compute.processes={n}"))["dpo"] for n in (1, 2))
    assert two.phase.gradients == 2 * one.phase.gradients
    assert two.room == one.room / 2
    assert two.seconds < one.seconds


def test_what_would_help_is_planned_again(some: Callable[[str, str], Path], fresh: None):
    both = some("reward", "dpo")
    tight = 0.9 * stages(planned(both))["ppo"].peak
    found = planned(both, memory=tight)
    assert [stage.name for stage in found.stages if not stage.fits] == ["ppo"]
    before, changed = stages(found)["ppo"], found.advice["ppo"]
    assert {"stage.ppo.lora={}", "stage.ppo.params.critic=trunk", "stage.reward.ensemble=1"} < set(changed)
    whole = Shape(WIDE).weights
    assert changed["stage.reward.ensemble=1"].peak == pytest.approx(before.peak - whole - 4 * 512, rel=0.001)
    together = next(reversed(changed.values()))
    assert together.fits
    assert together.peak <= min(stage.peak for stage in changed.values())


def test_on_a_gpu_a_process_has_a_device_and_python_is_elsewhere(some: Callable[[str, str], Path], fresh: None):
    found = planned(some("dpo", "best"), "compute.precision=auto", machine="h100x8")
    assert (found.processes, found.precision) == (8, "bfloat16")
    assert all(stage.phase.data == 0 and stage.room == 80e9 for stage in found.stages)


MEASURE = """
import re, sys
from pathlib import Path
from accord.recipe_file import load
from accord.stages import run
run(load(Path(sys.argv[1]), sys.argv[3:]), Path(sys.argv[2]), only=["sft"])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_that_of_a_run_within_15_percent(recipe: Path, tmp_path: Path):
    only = tmp_path / "sft.toml"
    only.write_text(
        recipe.read_text().partition("[stage.reward]")[0].replace("sft.jsonl", f"{recipe.parent}/sft.jsonl")
    )
    run = [sys.executable, "-c", MEASURE, str(only), str(tmp_path / "run")]
    say = [sys.executable, "-m", "accord", "plan", str(only), "--machine", "cpu2", "--json"]
    ran, said = (
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT) for command in (run, say)
    )
    peak = json.loads(said.stdout)["stages"][0]["peak"]
    assert peak == pytest.approx(int(ran.stdout) * 1024, rel=0.15)
    assert peak > 500 * MB  # most of it is not Python
