"""Open and save models: policies, and scorers, which have a scalar head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import takewhile
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from accord import attention, lora, norm
from accord.data.files import first_line
from accord.data.tokenizer import unreadable
from accord.errors import EngineError, ModelError, out_of_memory
from accord.lora import Adapter
from accord.recipe import Lora
from accord.run import write_folder

TRAINED = "trained"  # the adapter that learns, of a model that has a trunk to itself


def load_config(path: str | Path, where: str) -> PretrainedConfig:
    """A model's configuration, for an adapter without one that of its base; ModelError where there is no model."""
    try:
        return AutoConfig.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        if adapter := lora.find(path, where):
            return load_config(adapter.base, where)
        raise unreadable("model", path, error, where) from None


def skeleton(config: PretrainedConfig, where: str, *, scorer: bool = False) -> PreTrainedModel:
    """The layers of a model as it is opened, without memory for their weights; ModelError where it cannot be a policy, or a
    scorer."""
    kind = AutoModelForSequenceClassification if scorer else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            made = kind.from_config(config, dtype=torch.float32, attn_implementation=_attention(config))
    except (ValueError, ImportError) as error:
        said = f"a {config.model_type} model is of no use here ({first_line(error)})"
        raise ModelError(where, said, "give a decoder, as Llama, Qwen2 or GPT-2") from None
    made = cast(PreTrainedModel, made).eval()
    if scorer:
        score_head(made)
    return made


def load_policy(
    path: str | Path, tokenizer: PreTrainedTokenizerBase, where: str, *, train: Lora | None = None, seed: int = 0
) -> PreTrainedModel:
    """A causal language model in float32 without dropout, with an embedding row for every token of the tokenizer.

    With `train` its weights stand still and an adapter, new or the one in `path`, learns; else one in `path` is merged.
    """
    adapter = lora.find(path, where)
    config = load_config(path, where)
    base = str(adapter.base if adapter else path)
    if has_head(config):
        raise ModelError(where, f"{path} is a reward model and cannot answer", "give a model that does")
    with _intact(base, where):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=_attention(config))
    return _adapted(_mended(cast(PreTrainedModel, model), tokenizer), adapter, train, where, seed=seed)


def load_scorer(
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    where: str,
    *,
    seed: int | None,
    train: Lora | None = None,
) -> PreTrainedModel:
    """A language model with a scalar head, in float32 without dropout; `train` as in `load_policy`.

    A folder that has a head keeps it. Otherwise the head is new: drawn from N(0, 1/(d+1)) with `seed` (Stiennon et al.
    2020), or 0 where `seed` is None, as a critic starts (Ziegler et al. 2019).
    """
    adapter = lora.find(path, where)
    config = load_config(path, where)
    config.num_labels = 1
    base = str(adapter.base if adapter else path)
    with _intact(base, where):
        model = AutoModelForSequenceClassification.from_pretrained(
            base, config=config, dtype=torch.float32, attn_implementation=_attention(config)
        )
    model = cast(PreTrainedModel, model)
    _set_head(model, config, adapter, seed)
    return _adapted(_mended(model, tokenizer), adapter, train, where, seed=seed or 0)


@contextmanager
def _intact(path: str, where: str) -> Iterator[None]:
    """Name the model whose files cannot be read, or do not fit into memory."""
    try:
        yield
    except (SafetensorError, EOFError, UnpicklingError) as error:
        fix = "have its stage done again (remove the stage's folder), or fetch the model again"
        raise ModelError(path, f"its weights are damaged ({error})", fix) from None
    except (OSError, ValueError, ImportError, MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise EngineError(where, f"there is not enough memory for {path}", "give a smaller model") from None
        raise unreadable("model", path, error, where) from None


def _set_head(model: PreTrainedModel, config: PretrainedConfig, adapter: Adapter | None, seed: int | None) -> None:
    """Give a scorer the head of its adapter, or a new one where its folder has none."""
    weight = score_head(model).weight
    stored = lora.stored_head(adapter) if adapter else None
    with torch.no_grad():
        if stored is not None:
            weight.copy_(stored)
        elif not has_head(config) or adapter:
            if seed is None:
                weight.zero_()
            else:
                weight.normal_(0, (weight.shape[1] + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))


def _adapted(
    model: PreTrainedModel, adapter: Adapter | None, train: Lora | None, where: str, *, seed: int
) -> PreTrainedModel:
    """A model with its adapter merged, or with frozen weights and an adapter that learns."""
    if train is None:
        if adapter:
            lora.attach(model, "merged", adapter)
            lora.merge(model, "merged")
        return model
    if adapter and not adapter.fits(train):
        form = f"r = {adapter.r}, alpha = {adapter.alpha:g}, targets = {list(adapter.targets)}"
        raise ModelError(f"{where.rpartition('.')[0]}.lora", f"the adapter that comes in has another form ({form})",
                         "use that, or merge it first: accord export MODEL --merge")  # fmt: skip
    model.requires_grad_(False)
    lora.attach(model, TRAINED, adapter or lora.new(model, train), dropout=train.dropout, seed=seed)
    for weight in lora.own_parameters(lora.bind(model, TRAINED)):
        weight.requires_grad_(True)
    return model


def policy_beside(
    model: PreTrainedModel, path: str | Path, tokenizer: PreTrainedTokenizerBase, where: str
) -> PreTrainedModel:
    """A frozen policy: a view of the trunk of `model` where both have the same base, else a model of its own."""
    adapter = lora.find(path, where)
    if not lora.same_base(model, adapter.base if adapter else path):
        return load_policy(path, tokenizer, where)
    name = lora.spare_name(model) if adapter else ""
    if adapter:
        lora.attach(model, name, adapter)
    return lora.view(model, name)


def scorer_beside(
    model: PreTrainedModel,
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    where: str,
    *,
    train: Lora | None = None,
) -> PreTrainedModel:
    """A reward model, or with `train` a critic, on the trunk of `model` where both have the same base, else of its own."""
    adapter = lora.find(path, where)
    if not lora.same_base(model, adapter.base if adapter else path):
        return load_scorer(path, tokenizer, where, seed=None, train=train)
    config = load_config(path, where)
    name = lora.spare_name(model)
    if adapter or train:
        lora.attach(model, name, adapter or lora.new(model, cast(Lora, train)))
    scorer = lora.bind(lora.scorer_on(model, config, tokenizer), name)
    _set_head(scorer, config, adapter, None)
    for weight in lora.own_parameters(scorer):
        weight.requires_grad_(train is not None)
    return scorer


def _attention(config: PretrainedConfig) -> str | None:
    """Accord's own attention where that computes what the architecture's does; else the model's own choice."""
    window = getattr(config, "sliding_window", None)
    known = config.model_type in attention.KNOWN and not (window and window < context_of(config))
    return attention.NAME if known else None


def has_head(config: PretrainedConfig) -> bool:
    """Whether a model folder is a reward model or critic."""
    return any("ForSequenceClassification" in name for name in config.architectures or [])


def score_head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer that makes the score."""
    head = dict(model.named_children()).get("score")
    if not isinstance(head, nn.Linear):
        said = f"a {type(model).__name__} has no linear head named 'score'"
        raise ModelError(str(model.config._name_or_path), said, "give a decoder, as Llama, Qwen2 or GPT-2")
    return head


def _mended(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Fit a model to its mended tokenizer: an embedding row for the pad token, and its id in the configuration.

    The model stays in evaluation mode, in which it is trained too: dropout is off.
    """
    rows = _weight(model.get_input_embeddings()).shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        layers = {id(x): x for x in (model.get_input_embeddings(), model.get_output_embeddings()) if x is not None}
        with torch.no_grad():
            for layer in layers.values():
                _weight(layer)[rows:] = _weight(layer)[:rows].mean(0)
    model.config.pad_token_id = tokenizer.pad_token_id
    norm.quicken(model)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval()


def _weight(layer: nn.Module) -> Tensor:
    """The weight of an embedding or a linear layer."""
    return cast(Tensor, layer.weight)


def context_of(config: PretrainedConfig) -> int:
    """The longest row that a model takes."""
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        value = config.to_dict().get(name)
        if isinstance(value, int):
            return value
    return 2**30


def narrow(model: PreTrainedModel, precision: torch.dtype) -> None:
    """Keep the matrices of a frozen model's linear layers in the precision that autocast multiplies them in.

    Products stay the same to the bit, without a cast before each of them. What autocast leaves alone stays as it is: norms,
    embeddings, an LM head that is the embedding too, and the trunk that a view shares with other models. It is copied, for
    weights of a file are mapped from there, and one of them would keep the whole file in memory.
    """
    if lora.name_of(model) is not None:
        return
    kept = {id(weight) for part in model.modules() if isinstance(part, nn.Embedding) for weight in part.parameters()}
    low = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear | Conv1D)} - kept
    for weight in model.parameters():
        weight.data = weight.data.to(precision) if id(weight) in low else weight.data.clone()


def learn_last(model: PreTrainedModel, count: int) -> None:
    """Let only the last `count` layers learn, with what stands above them; all of a model that has no more."""
    layers = next(part for part in model.base_model.modules() if isinstance(part, nn.ModuleList))
    if count >= len(layers):
        return
    first = next(layers[-count].parameters())
    for weight in takewhile(lambda weight: weight is not first, model.parameters()):  # in the order of the forward pass
        weight.requires_grad_(False)


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Let every layer be computed again in the backward pass, with the adapter that it ran with (Chen et al. 2016,
    https://arxiv.org/abs/1604.06174)."""
    for layer in model.base_model.modules():
        if isinstance(layer, GradientCheckpointingLayer) and "forward" not in vars(
            layer
        ):  # another role has the same trunk
            vars(layer)["forward"] = partial(_checkpointed, layer, layer.forward)


def _checkpointed(layer: nn.Module, run: Callable[..., Tensor], *args: object, **kwargs: object) -> Tensor:
    if not torch.is_grad_enabled():
        return run(*args, **kwargs)
    contexts = nullcontext(), lora.again(layer)
    return cast(Tensor, checkpoint(partial(run, *args, **kwargs), use_reentrant=False, context_fn=lambda: contexts))


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *,
    also: Callable[[Path], None] | None = None,
) -> None:  # fmt: skip
    """Write a folder that plain transformers, or of an adapter `peft`, opens, with its tokenizer and chat template.

    `also` adds files of accord's own.
    """

    def fill(draft: Path) -> None:
        # Who writes is settled; transformers would have only the first of several processes do it.
        vars(model)["should_save_on_this_rank"] = lambda _: True
        if lora.name_of(model) is None:
            model.save_pretrained(draft)
        else:
            lora.save(model, draft)
        tokenizer.save_pretrained(draft)
        if also:
            also(draft)

    write_folder(folder, fill, SafetensorError)
