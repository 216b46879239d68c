"""What has to be read or opened before a model is released: its training data, its tokenizer, its files elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import cast

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from accord import lora
from accord.console import Box
from accord.data import chat, quality
from accord.data.dropped import Dropped
from accord.data.records import Example, Message, Pair, Prompt, Ranking, Record, as_prompt
from accord.data.sources import read
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.engine import Engine
from accord.errors import AccordError
from accord.model import context_of, load_config, load_policy
from accord.recipe import AnyStage, Compute, Mix, Recipe, Source
from accord.run import Run
from accord.sampler import Ask
from accord.sampler.local import LocalSampler
from accord.stages import export, with_files

# Shares of the records of a source: of the same record again, and of those that say nothing or the opposite.
DUPLICATE, WRONG = 0.05, 0.01
ASKED, NEW = 8, 32  # prompts that both answer greedily, and tokens of an answer
TEXTS = 200  # records whose text goes through the tokenizer and back
ODD = "naïve café \u2013 12 µs\n\t“quoted” ½ 你好 🙂 e\u0301"


def training_data(recipe: Recipe, run: Run, names: Sequence[str]) -> list[tuple[str, Source]]:
    """The sources that stages learned from, each under the name of its stage, each once."""
    found: dict[str, tuple[str, Source]] = {}
    for name in names:
        stage = with_files(run, recipe.stage[name])
        for source in _sources(stage):
            found.setdefault(source.model_dump_json(), (name, source))
    return list(found.values())


def _sources(stage: AnyStage) -> list[Source]:
    mix = getattr(stage, "mix", None)
    return [*stage.data, *(mix.data if isinstance(mix, Mix) else [])]


def needed(recipe: Recipe, name: str) -> list[str]:
    """A stage, those that it began from, and the reward models that trained it, in the order of the recipe."""
    found, queue = set[str](), [name]
    while queue:
        stage = recipe.stage[here := queue.pop()]
        found.add(here)
        named = [getattr(stage, "model", None), *getattr(stage, "rewards", {})]
        queue += [one[1:] for one in named if isinstance(one, str) and one.startswith("@") and one[1:] not in found]
    return [one for one in recipe.stage if one in found]


def data_boxes(data: Sequence[tuple[str, Source]], held: Sequence[Record]) -> tuple[Box, Box]:
    """Whether the training data is clean, and whether it knows what the model is evaluated on."""
    clean, leaks = "data clean", "no leakage"
    looks: list[str] = []
    bad: list[str] = []
    leaked: list[str] = []
    try:
        for name, source in data:
            found = quality.inspect(lambda dropped, source=source: _read(source, dropped), against=[held])
            count = {kind: finding.count for kind, finding in found.findings.items()}
            label = f"{name} ({_short(source.source)}, {found.records:,} records)"
            told = [f"{count[kind]:,} {kind.replace('_', ' ')}" for kind in quality.KINDS if count.get(kind)]
            looks.append(f"{label}: {', '.join(one for one in told if not one.endswith(' leak')) or 'nothing'}")
            wrong = count.get("identical", 0) + count.get("contradiction", 0)
            if count.get("duplicate", 0) > DUPLICATE * found.records or wrong > WRONG * found.records:
                bad.append(_short(source.source))
            if count.get("leak"):
                leaked.append(f"{label}: {count['leak']:,}, as {found.findings['leak'].examples[0]}")
    except AccordError as error:
        said = Box(
            clean, False, f"the training data cannot be read: {error}", "put it back where the recipe says it is"
        )
        return said, Box(leaks, False, "not measured: the training data cannot be read", said.close)
    close = f"accord check --data {' '.join(bad)} --clean FILE; at most {DUPLICATE:.0%} duplicates, {WRONG:.0%} contradictions"
    box = Box(clean, not bad, "; ".join(looks), close)
    if not held:
        return box, Box(leaks, False, "not measured: nothing was evaluated", "evaluate the model")
    none = (
        f"none of {len(held):,} evaluation prompts, nor a run of {quality.RUN} of their words, is in the training data"
    )
    fix = "accord check --data FILE --against EVALUATION --clean FILE, and train on what is left"
    return box, Box(leaks, not leaked, "; ".join(leaked) or none, fix)


def _read(source: Source, dropped: Dropped) -> Iterator[Record]:
    return read(source, dropped, "data")


def _short(source: str) -> str:
    return "/".join(Path(source).parts[-2:]) if Path(source).is_absolute() else source


def held_prompts(
    prompts: Sequence[Sequence[Message]], recipe: Recipe, run: Run, evaluations: Sequence[str]
) -> list[Record]:
    """What the model was evaluated on: the prompts of its answers, or else the data of its evaluations."""
    if prompts:
        return [Prompt(prompt=list(turns)) for turns in prompts]
    stages = [with_files(run, recipe.stage[name]) for name in evaluations]
    every = chain.from_iterable(_read(source, Dropped()) for stage in stages for source in stage.data)
    return [as_prompt(record) for record in every]


# ----------------------------------------------------------------------------------------------------------- tokenizer


def tokenizer_box(folder: Path, records: Sequence[Record]) -> Box:
    """Whether text comes back from tokens as it was, and plain transformers renders conversations as training did."""
    name, close = "tokenizer and chat template", "mend the tokenizer of the base model, and train again"
    try:
        ours = load_tokenizer(folder, "release")
        plain = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(str(folder)))
    except AccordError as error:
        return Box(name, False, str(error), close)
    if not plain.chat_template:
        return Box(
            name, False, "there is no chat template in the folder", "run its stage again with this version of accord"
        )
    texts = [ODD, *dict.fromkeys(text for record in records for text in _texts(record))]
    changed = [text for text in texts if _there_and_back(plain, text) != text]
    if changed:
        said = f"{len(changed)} of {len(texts)} texts come back changed, as {changed[0][:80]!r}"
        return Box(name, False, said, close)
    try:
        wrong = [turns for turns in map(_conversation, records) if turns and not _renders_alike(ours, plain, turns)]
    except TemplateError as error:
        return Box(name, False, f"the chat template fails: {error}", close)
    told = f"{len(texts):,} texts come back as they were, {len(records):,} conversations render as in training and end"
    return Box(name, not wrong, f"rendered otherwise, as {wrong[0][0]['content'][:80]!r}" if wrong else told, close)


def _there_and_back(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(cast("list[int]", tokens), clean_up_tokenization_spaces=False))


def _renders_alike(ours: PreTrainedTokenizerBase, plain: PreTrainedTokenizerBase, turns: list[Message]) -> bool:
    """Whether the template's prompt is the beginning of the whole, holds the tokens of training, and the answer ends."""
    answer: Message = {"role": "assistant", "content": "A short answer."}
    ask = str(
        plain.apply_chat_template(cast("list[dict[str, str]]", turns), add_generation_prompt=True, tokenize=False)
    )
    whole = str(plain.apply_chat_template(cast("list[dict[str, str]]", [*turns, answer]), tokenize=False))
    tokens = cast("list[int]", plain(ask, add_special_tokens=False)["input_ids"])
    after = cast("list[int]", plain(whole.rpartition(answer["content"])[2], add_special_tokens=False)["input_ids"])
    same = tokens == chat.prompts(ours, [turns])[0]
    return whole.startswith(ask) and same and bool(set(after) & stop_ids(ours))


def _conversation(record: Record) -> list[Message]:
    turns = [] if not isinstance(record, Prompt | Example | Pair | Ranking) else as_prompt(record).prompt
    return turns if turns and turns[-1]["role"] == "user" else []


def _texts(record: Record) -> list[str]:
    prompt, answers = quality.parts(record)
    return [prompt, *answers]


def some(data: Sequence[tuple[str, Source]], count: int = TEXTS) -> list[Record]:
    """The first records of each source."""
    return [record for _, source in data for record in islice(_read(source, Dropped()), count // max(len(data), 1))]


# --------------------------------------------------------------------------------------------------------------- model


def merged_box(folder: Path) -> Box:
    """Whether the model is whole, or stands on a base that others have too."""
    name = "merged, or its base named"
    adapter = lora.find(folder, "release")
    if adapter is None:
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**20
        return Box(name, True, f"a whole model, {size:,.1f} MiB")
    base = str(adapter.base)
    if Path(base).is_dir():
        said = f"an adapter on {_short(base)}, a folder of this machine"
        return Box(
            name, False, said, f"accord export {_short(str(folder.parent))} --merge --out FOLDER, and release that"
        )
    return Box(name, True, f"an adapter on {base}")


def export_box(folder: Path, prompts: Sequence[list[Message]]) -> Box:
    """Whether plain transformers opens the model, an adapter merged, and gives the same greedy answers."""
    name, close = (
        "export checked",
        "run its stage again with this version of accord; accord export --merge writes a copy",
    )
    if not prompts:
        return Box(name, False, "not measured: there is no prompt to answer", "evaluate the model")
    with tempfile.TemporaryDirectory() as space:
        place = folder
        try:
            if lora.find(folder, "release"):
                place = Path(space) / "merged"
                export.merged(str(folder), place)
            asked = [list(turns) for turns in prompts[:ASKED]]
            ours, theirs = accords(folder, asked), plains(place, asked)
        except (AccordError, OSError, ValueError) as error:
            return Box(name, False, f"plain transformers does not open it: {error}", close)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    how = "merged, " if place != folder else ""
    said = f"{how}opens in plain transformers; {same} of {len(asked)} greedy answers of {NEW} tokens are the same"
    return Box(name, same == len(asked), said, close)


def accords(folder: Path, asked: Sequence[list[Message]]) -> list[list[int]]:
    """Greedy answers by accord's own sampler, in tokens without the one that ends them."""
    tokenizer = load_tokenizer(folder, "release")
    policy = Engine(Compute(device="cpu", precision="float32")).place(load_policy(folder, tokenizer, "release"))
    ends = stop_ids(tokenizer, folder)
    room = context_of(load_config(folder, "release")) - NEW
    asks = [
        Ask(prompt=turns, tokens=tokens[-room:], number=at)
        for at, (turns, tokens) in enumerate(zip(asked, chat.prompts(tokenizer, asked), strict=True))
    ]
    found = LocalSampler(policy, tokenizer, ends).generate(asks, max_new_tokens=NEW, temperature=0.0, seed=0)
    return [_until(rollout.tokens, ends) for rollout in found]


@torch.no_grad()
def plains(folder: Path, asked: Sequence[list[Message]]) -> list[list[int]]:
    """The same by `generate` of transformers, with nothing of accord's."""
    tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(str(folder)))
    model = cast(PreTrainedModel, AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)).eval()
    ends = stop_ids(tokenizer, folder)
    room = context_of(model.config) - NEW
    found: list[list[int]] = []
    for turns in asked:
        text = tokenizer.apply_chat_template(
            cast("list[dict[str, str]]", turns), add_generation_prompt=True, tokenize=False
        )
        tokens = torch.tensor([cast("list[int]", tokenizer(str(text), add_special_tokens=False)["input_ids"])[-room:]])
        out = model.generate(  # pyright: ignore[reportCallIssue]
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=NEW,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        found.append(_until(cast(torch.Tensor, out)[0, tokens.shape[1] :].tolist(), ends))
    return found


def _until(tokens: Sequence[int], ends: set[int]) -> list[int]:
    """Tokens up to the first that ends an answer."""
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:stop])
