"""The lean forward pass computes what transformers computes, and steps aside where a model is not what its class says."""

from __future__ import annotations

from collections.abc import Callable

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
    Qwen3Config,
    Qwen3ForCausalLM,
)

from accord import lora, norm
from accord.model import checkpoint_layers
from accord.recipe import Lora
from accord.sampler import Ask
from accord.sampler.cache import Prompts, Rows, Slots, windows
from accord.sampler.lean import Lean, plain, ready
from accord.sampler.local import LocalSampler

LLAMA = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
SCALED = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=4, n_positions=64,
                                               scale_attn_by_inverse_layer_idx=True)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True)),
    "llama-scaled": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, rope_parameters=SCALED, hidden_act="gelu")),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=5)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**LLAMA, head_dim=16)),
}  # fmt: skip
PROMPTS = [[7, 8, 9, 10, 11, 12, 13, 14], [200, 5, 6], [99]]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return made(request.param)


def made(name: str) -> PreTrainedModel:
    """A model none of whose weights and biases is 0 or 1."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


@torch.inference_mode()
def answered(model: PreTrainedModel) -> list[Tensor]:
    """Logits after each prompt and after each of six more tokens, [7, V] of each."""
    with ready(model) as (forward, dtype):
        slots, kinds = Slots(3, dtype), windows(model.config)
        begin = Prompts(slots, PROMPTS, torch.arange(3), torch.arange(3), kinds)
        found, positions = [forward(begin.tokens, begin.positions, begin, begin.last)], torch.tensor([8, 3, 1])
        for step in range(6):
            slots.grow(8 + step + 1, 3)
            found.append(forward(torch.full((3,), 20 + step), positions + step, Rows(slots, positions + step, kinds)))
    return list(torch.stack(found, 1).float())


@torch.inference_mode()
def expected(model: PreTrainedModel) -> list[Tensor]:
    """The same by plain transformers, one row at a time."""
    rows = [[*prompt, *range(20, 26)] for prompt in PROMPTS]
    return [model(input_ids=torch.tensor([row])).logits[0, -7:].float() for row in rows]


def test_logits_are_those_of_transformers(model: PreTrainedModel):
    assert plain(model)
    torch.testing.assert_close(answered(model), expected(model), rtol=1e-4, atol=1e-4)


def test_bfloat16_is_as_precise_as_autocast(model: PreTrainedModel):
    exact = torch.stack(expected(model))
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = torch.stack(answered(model)), torch.stack(expected(model))
    errors = [(x - exact).square().mean().sqrt() for x in (ours, theirs)]
    assert 0 < errors[0] < 1.3 * errors[1]  # scores of attention are rounded to bfloat16, of transformers not


def test_weights_in_bfloat16(model: PreTrainedModel):
    half = model.to(torch.bfloat16)
    theirs, ours = torch.stack(expected(half)), torch.stack(answered(half))
    exact = torch.stack(expected(half.float()))
    assert (ours - exact).square().mean() < 1.3 * (theirs - exact).square().mean()


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_an_adapter_is_a_part_of_its_layers(name: str):
    trunk, merged = made(name), made(name)
    lora.attach(trunk, "one", lora.new(trunk, Lora(r=4)))
    policy, base = lora.view(trunk, "one"), lora.view(trunk, "")
    torch.manual_seed(1)
    with torch.no_grad():
        for path, layer in trunk.base_model.named_modules():
            if isinstance(layer, lora.Low):
                layer.lora_B.weight.normal_(std=0.3)
                delta = layer.scale * layer.lora_B.weight @ layer.lora_A.weight
                target = merged.base_model.get_submodule(path.split(".adapters.")[0])
                target.weight.add_(delta if isinstance(target, nn.Linear) else delta.T)
    assert plain(policy)
    assert plain(base)
    torch.testing.assert_close(answered(policy), expected(merged), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(answered(base), expected(made(name)), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(torch.stack(expected(merged)), torch.stack(expected(made(name))), atol=0.1)


class Doubled(nn.Linear):
    """A layer of somebody's own."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def doubled(model: PreTrainedModel) -> None:
    layer = model.get_submodule("model.layers.1.self_attn.o_proj")
    own = Doubled(32, 32, bias=False)
    own.load_state_dict(layer.state_dict(), strict=False)
    model.set_submodule("model.layers.1.self_attn.o_proj", own)


def stands_in(model: PreTrainedModel) -> None:
    layer = model.get_submodule("model.layers.0.mlp")
    vars(layer)["forward"] = lambda x: -x


CHANGES: dict[str, Callable[[PreTrainedModel], object]] = {
    "hook": lambda model: model.get_submodule("model.layers.2").register_forward_hook(lambda _, __, out: 0.5 * out),
    "hook before": lambda model: model.get_submodule("model.layers.0.mlp.down_proj").register_forward_pre_hook(
        lambda _, given: (given[0] + 1,)
    ),
    "hook on the model": lambda model: model.register_forward_pre_hook(lambda _, __: None),
    "another part": doubled,
    "another forward pass": stands_in,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_run_as_it_is(change: str):
    model = made("qwen2")
    CHANGES[change](model)
    assert not plain(model)
    torch.testing.assert_close(answered(model), expected(model), rtol=1e-4, atol=1e-4)


def test_norms_and_checkpoints_of_accord_are_known():
    model = made("llama")
    before = expected(model)
    norm.quicken(model)
    checkpoint_layers(model)
    with ready(model) as (forward, _):
        assert isinstance(forward, Lean)
    torch.testing.assert_close(answered(model), before, rtol=1e-4, atol=1e-4)


def test_weights_are_read_anew_for_every_call(tokenizer: PreTrainedTokenizerFast):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**LLAMA | {"vocab_size": 320, "initializer_range": 0.3})).eval()
    sampler, ask = LocalSampler(model, tokenizer, set()), [Ask(prompt=[], tokens=[7, 8, 9], number=0)]

    def said() -> list[int]:
        return sampler.generate(ask, max_new_tokens=5, temperature=0, seed=0)[0].tokens

    before = said()
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.roll(1, 0))
    assert said()[0] == (before[0] + 1) % 320
