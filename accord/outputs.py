"""What objectives ask of a forward pass: log-probs of the train tokens, entropies, scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from accord import attention, last_layer, logits, lora
from accord.data.batch import Batch
from accord.data.packed import Packed, pack
from accord.errors import ModelError
from accord.model import score_head

Output: TypeAlias = Literal[
    "logp", "entropy", "entropy_grad", "likeliest", "logit", "score", "value", "reward", "feature"
]
OF_SCORER = {"score", "value", "reward", "feature"}


@dataclass(frozen=True)
class Outputs:
    """What a forward pass was asked for; reading anything else is an error.

    `logp[b, t]`, `entropy[b, t]`, `likeliest[b, t]` and `logit[b, t]` belong to token t, 0 outside `batch.train`; `score[b, t]`
    comes from the hidden state of token t (with mean pooling, from those of the answer up to t). `reward` and `value` are the
    scores that reward models and critics are about, for less than those of all tokens cost.
    """

    values: dict[str, Tensor]  # each [B, T] float32, but the reward [B, 1] and the feature [B, hidden]

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
    def value(self) -> Tensor:
        """What a critic says before each `valued` token, [B, T]: the score after the token in front of it; 0 elsewhere and
        before the first."""
        return self._get("value")

    @property
    def reward(self) -> Tensor:
        """The score at each row's last real token, [B]."""
        return self._get("reward")[:, 0]

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

    def shared(self) -> PreTrainedModel | None:
        """The scorer, where it is a head on the policy itself, and not a view of its trunk with another adapter."""
        one = self.scorer and self.policy and self.scorer.base_model is self.policy.base_model
        return self.scorer if one and lora.name_of(cast(PreTrainedModel, self.scorer)) is None else None

    def forward(self, batch: Batch, outputs: Sequence[Output]) -> dict[str, Tensor]:
        """The outputs asked for, each [B, T] float32, but `reward` [B, 1] and `feature` [B, hidden]."""
        found: dict[str, Tensor] = {}
        hidden: list[Tensor] = []  # of the policy's trunk, where a head for scores stands on it too
        if {"logp", "entropy", "likeliest", "logit"} & set(outputs):
            assert self.policy is not None
            shared = self.shared()
            with _kept(cast(nn.Module, self.policy.base_model), hidden) if shared else nullcontext():
                found |= token_outputs(
                    self.policy, batch, entropy_grad="entropy_grad" in outputs, logit="logit" in outputs,
                    also=scored(shared, batch, outputs) if shared else None,
                )  # fmt: skip
        if OF_SCORER & set(outputs):
            assert self.scorer is not None
            found |= scorer_outputs(self.scorer, batch, outputs, hidden=hidden[0] if hidden else None)
        return {name: found[name] for name in outputs if name in found}


def packed_hidden(model: PreTrainedModel, packed: Packed, reads: Tensor, **kwargs: object) -> Tensor:
    """The last hidden states of packed tokens, [1, N, hidden], right for the tokens of the rows that `reads` [B, T] names."""
    kept: list[Tensor] = []
    layout = attention.laid_out(packed.tokens, packed.positions, attention.Apart(packed))
    at = packed.seen(reads)
    with last_layer.only(model, at, packed.tokens.numel()), _kept(cast(nn.Module, model.base_model), kept):
        model(**layout, **kwargs)
    return kept[0]


def train_hidden(model: PreTrainedModel, batch: Batch, also: Tensor | None = None) -> Tensor:
    """What the LM head of a known architecture reads where the train tokens are predicted, [N, hidden].

    `also` names further tokens, [B, T] bool, whose last hidden states somebody else reads.
    """
    packed, before = pack(batch), _before(batch.train)
    reads = before if also is None else before | also
    return packed.pick(packed_hidden(model, packed, reads, logits_to_keep=1), before)


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
    model: PreTrainedModel, batch: Batch, *, entropy_grad: bool = False, logit: bool = False, also: Tensor | None = None
) -> dict[str, Tensor]:
    """`logp`, `entropy` and `likeliest`, each [B, T], and if asked for `logit`; of the entropy a gradient only with
    `entropy_grad`. `also` as in `train_hidden`."""
    targets = batch.tokens[batch.train]
    if packs(model):
        head = cast(nn.Module, model.get_output_embeddings())
        hidden = train_hidden(model, batch, also)
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


def scorer_outputs(
    model: PreTrainedModel, batch: Batch, names: Sequence[Output], *, hidden: Tensor | None = None
) -> dict[str, Tensor]:
    """What of `score`, `value`, `reward` and `feature` is in `names`, from the trunk's `hidden` states where they are at hand.

    Plain transformers runs the head for one token only; a hook keeps what it reads of all.
    """
    packed = pack(batch) if packs(model) else None
    if hidden is None and packed:
        hidden = packed_hidden(model, packed, scored(model, batch, names))
    elif hidden is None:
        kept: list[Tensor] = []
        with _kept(cast(nn.Module, model.base_model), kept):
            model(**inputs_of(batch), use_cache=False)
        hidden = kept[0]
    scores = score_head(model)(hidden)[..., 0].float()
    scores = packed.rows(scores) if packed else scores
    scores = running_mean(scores, batch.train) if pooling(model) == "mean" else scores
    found = {"score": scores, "reward": scores.gather(1, batch.last()[:, None])}
    if "value" in names:
        found["value"] = functional.pad(scores[:, :-1], (1, 0)) * batch["valued"]
    if "feature" in names:
        found["feature"] = (packed.pick(hidden, _last(batch)) if packed else hidden[_last(batch)]).float()
    return {name: found[name] for name in names if name in found}


def scored(model: PreTrainedModel, batch: Batch, names: Sequence[Output]) -> Tensor:
    """The tokens whose hidden states a scorer reads for these outputs, [B, T] bool."""
    if "score" in names or pooling(model) == "mean":
        return batch.attend
    reads = _last(batch) if {"reward", "feature"} & set(names) else torch.zeros_like(batch.attend)
    return reads | _before(batch["valued"].bool()) if "value" in names else reads


def pooling(model: PreTrainedModel) -> str:
    """How a reward model comes to one score: at the "last" token, or by the "mean" over the answer's."""
    return getattr(model.config, "reward_pooling", "last")


def running_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the masked values up to each place of a row, [B, T]; 0 before the first."""
    return (values * mask).cumsum(1) / mask.cumsum(1).clamp(min=1)


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


def _last(batch: Batch) -> Tensor:
    """Each row's last real token, [B, T] bool."""
    return torch.zeros_like(batch.attend).scatter_(1, batch.last()[:, None], True)


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
