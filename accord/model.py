"""Open and save models, and compute what objectives ask for: log-probs of the train tokens, entropies, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal, TypeAlias, cast

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

from accord import attention, logits, lora, norm
from accord.data.batch import Batch
from accord.data.files import first_line
from accord.data.packed import pack
from accord.data.tokenizer import unreadable
from accord.errors import EngineError, ModelError, out_of_memory
from accord.lora import Adapter
from accord.recipe import Lora
from accord.run import write_folder

TRAINED = "trained"  # the adapter that learns, of a model that has a trunk to itself

Output: TypeAlias = Literal["logp", "entropy", "entropy_grad", "likeliest", "logit", "score", "feature"]


@dataclass(frozen=True)
class Outputs:
    """What a forward pass was asked for; reading anything else is an error.

    `logp[b, t]`, `entropy[b, t]`, `likeliest[b, t]` and `logit[b, t]` belong to token t, 0 outside `batch.train`; `score[b, t]`
    comes from the hidden state of token t (with mean pooling, from those of the answer up to t). So a reward is the score
    at the last real token, and the value before token t is `score[b, t-1]`.
    """

    values: dict[str, Tensor]  # each [B, T] float32, but the feature

    def _get(self, name: Output) -> Tensor:
        if name not in self.values:
            raise ModelError("objective", f"reads '{name}', which was not computed", f"declare outputs=[..., '{name}']")
        return self.values[name]

    @property
    def logp(self) -> Tensor:
        """Log-probability of each train token, [B, T], in nats."""
        return self._get("logp")

    @property
    def entropy(self) -> Tensor:
        """Entropy of the distribution that each train token was drawn from, [B, T], in nats."""
        return self._get("entropy")

    @property
    def likeliest(self) -> Tensor:
        """Whether each train token is the one that the model finds most likely, [B, T], 1 or 0."""
        return self._get("likeliest")

    @property
    def logit(self) -> Tensor:
        """The mean logit of the distribution that each train token was drawn from, [B, T]."""
        return self._get("logit")

    @property
    def score(self) -> Tensor:
        """The scalar head after each token, [B, T]."""
        return self._get("score")

    @property
    def feature(self) -> Tensor:
        """The hidden state of each row's last real token, which the scalar head reads: [B, hidden]."""
        return self._get("feature")


class Roles(nn.Module):
    """The models that one update trains, behind one forward pass: a policy, a scorer (reward model or critic), or both.

    One module and not two, because sharding back-ends wrap a single root.
    """

    def __init__(self, *, policy: PreTrainedModel | None = None, scorer: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.scorer = scorer

    def forward(self, batch: Batch, outputs: Sequence[Output]) -> dict[str, Tensor]:
        """The outputs asked for, each [B, T] float32, but `feature` [B, hidden]."""
        found: dict[str, Tensor] = {}
        hidden: list[Tensor] = []  # of the policy's trunk, where a head for scores stands on it too
        if {"logp", "entropy", "likeliest", "logit"} & set(outputs):
            assert self.policy is not None
            shares = self.scorer is not None and _one_trunk(self.policy, self.scorer)
            with _kept(cast(nn.Module, self.policy.base_model), hidden) if shares else nullcontext():
                found |= token_outputs(
                    self.policy, batch, entropy_grad="entropy_grad" in outputs, logit="logit" in outputs
                )
        if "score" in outputs or "feature" in outputs:
            assert self.scorer is not None
            trunk = hidden[0] if hidden else None
            found |= scorer_outputs(self.scorer, batch, feature="feature" in outputs, hidden=trunk)
        return {name: found[name] for name in outputs if name in found}


def train_hidden(model: PreTrainedModel, batch: Batch) -> Tensor:
    """What the LM head of a known architecture reads where the train tokens are predicted, [N, hidden]."""
    packed = pack(batch)
    kept: list[Tensor] = []
    with _kept(cast(nn.Module, model.base_model), kept):
        model(**attention.laid_out(packed.tokens, packed.positions, attention.Apart(packed)), logits_to_keep=1)
    return packed.pick(kept[0], _before(batch.train))


def train_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits, divided by the temperature, of the distributions that the train tokens were drawn from: [N, V] float32.

    For any architecture. The LM head runs at those N positions only. A hook narrows its input, so whatever a model does to
    its logits (scaling, soft-capping) stays as it is.
    """
    before = _before(batch.train)
    head = cast(nn.Module, model.get_output_embeddings())

    def narrow(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][before][None], *inputs[1:])

    handle = head.register_forward_pre_hook(narrow)
    try:
        found = model(**inputs_of(batch), use_cache=False).logits[0]
    finally:
        handle.remove()
    found = found.float()
    return found / batch.temperature if batch.temperature != 1.0 else found


def token_outputs(
    model: PreTrainedModel, batch: Batch, *, entropy_grad: bool = False, logit: bool = False
) -> dict[str, Tensor]:
    """`logp`, `entropy` and `likeliest`, each [B, T], and if asked for `logit`; of the entropy a gradient only with
    `entropy_grad`."""
    targets = batch.tokens[batch.train]
    if packs(model):
        head = cast(nn.Module, model.get_output_embeddings())
        hidden = train_hidden(model, batch)
        logp, entropy, likeliest = logits.token_outputs(hidden, head, targets, temperature=batch.temperature)
        mean = logits.mean_logit(hidden, head, temperature=batch.temperature) if logit else None
    else:
        raw = train_logits(model, batch)  # [N, V]
        mean = raw.detach().mean(1) if logit else None
        everything = torch.log_softmax(raw, dim=-1)
        logp = everything.gather(1, targets[:, None])[:, 0]
        entropy = -(everything.exp() * everything).sum(1)
        likeliest = (logp == everything.amax(1)).to(logp.dtype)
    found = {"logp": logp, "entropy": entropy if entropy_grad else entropy.detach(), "likeliest": likeliest}
    found |= {} if mean is None else {"logit": mean}
    return {name: _scatter(values, batch) for name, values in found.items()}


def token_kl(model: PreTrainedModel, reference: PreTrainedModel, batch: Batch) -> Tensor:
    """KL(model || reference) of each train token's distribution, [B, T]: the exact sum over the vocabulary, in nats."""
    if packs(model) and packs(reference):
        ours, theirs = (
            (train_hidden(each, batch), cast(nn.Module, each.get_output_embeddings())) for each in (model, reference)
        )
        return _scatter(logits.kl(ours, theirs, temperature=batch.temperature), batch)
    p, q = (torch.log_softmax(train_logits(each, batch), dim=-1) for each in (model, reference))
    shared = min(p.shape[1], q.shape[1])  # a pad row may have been added to one of the two
    p, q = p[:, :shared], q[:, :shared]
    return _scatter((p.exp() * (p - q)).sum(1), batch)


def token_scores(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The scalar head's value after every token, [B, T] float32; of a model with `reward_pooling` "mean" in its
    configuration, the mean over the answer's tokens so far."""
    return scorer_outputs(model, batch, feature=False)["score"]


def scorer_outputs(
    model: PreTrainedModel, batch: Batch, *, feature: bool, hidden: Tensor | None = None
) -> dict[str, Tensor]:
    """`score`, [B, T], and if asked for `feature`, [B, hidden], from the trunk's `hidden` states where they are at hand.

    Plain transformers runs the head for one token only; a hook keeps what it reads of all.
    """
    packed = pack(batch) if packs(model) else None
    if hidden is None:
        kept: list[Tensor] = []
        layout = packed and attention.laid_out(packed.tokens, packed.positions, attention.Apart(packed))
        with _kept(cast(nn.Module, model.base_model), kept):
            model(**(layout or {**inputs_of(batch), "use_cache": False}))
        hidden = kept[0]
    scores = score_head(model)(hidden)[..., 0].float()
    scores = packed.rows(scores) if packed else scores
    found = {"score": running_mean(scores, batch.train) if pooling(model) == "mean" else scores}
    if feature:
        last = torch.zeros_like(batch.attend).scatter_(1, batch.last()[:, None], True)
        found["feature"] = (packed.pick(hidden, last) if packed else hidden[last]).float()
    return found


def pooling(model: PreTrainedModel) -> str:
    """How a reward model comes to one score: at the "last" token, or by the "mean" over the answer's."""
    return getattr(model.config, "reward_pooling", "last")


def running_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the masked values up to each place of a row, [B, T]; 0 before the first."""
    return (values * mask).cumsum(1) / mask.cumsum(1).clamp(min=1)


def _one_trunk(policy: PreTrainedModel, scorer: PreTrainedModel) -> bool:
    """Whether a scorer is a head on the policy itself, and not a view of its trunk with another adapter."""
    return scorer.base_model is policy.base_model and lora.name_of(scorer) is None


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


@contextmanager
def _kept(module: nn.Module, outputs: list[Tensor]) -> Iterator[None]:
    """Keep what a module returns (of several things the first) in `outputs`."""

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor | Sequence[Tensor]) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _scatter(values: Tensor, batch: Batch) -> Tensor:
    """Values of the train tokens, [N], at their places in [B, T]; 0 elsewhere."""
    return values.new_zeros(batch.train.shape).masked_scatter(batch.train, values)


def _before(train: Tensor) -> Tensor:
    """The places from which the train tokens are predicted, [B, T] bool."""
    found = torch.zeros_like(train)
    found[:, :-1] = train[:, 1:]
    return found


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """Keyword arguments of a transformers forward pass.

    Padding on the right needs neither mask nor positions under causal attention, and attention without a mask is
    faster; padding on the left needs both.
    """
    if not batch.left_padded:
        return {"input_ids": batch.tokens}
    return {
        "input_ids": batch.tokens,
        "attention_mask": batch.attend.long(),
        "position_ids": batch.positions(),
    }


def packs(model: PreTrainedModel) -> bool:
    """Whether a model reads tokens without padding."""
    return model.config._attn_implementation == attention.NAME


# ------------------------------------------------------------------------------------------------------ open and save


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
