"""Open a tokenizer and mend what training needs: an end token, a pad token of its own, a chat template, stop tokens."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import cast

from huggingface_hub.errors import LocalEntryNotFoundError
from jinja2 import TemplateError, TemplateSyntaxError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from accord.data.files import first_line
from accord.errors import AccordError, EngineError, ModelError

# One line per turn; works for any role. The answer's leading space belongs to the answer, so that the prompt ends on a
# token boundary ("Assistant:") and byte-pair merges never reach across it.
DEFAULT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ ('' if loop.first else '\\n') + message['role'] | capitalize + ': ' + message['content'] }}"
    "{{- eos_token if message['role'] == 'assistant' else '' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '\\nAssistant:' if messages else 'Assistant:' }}{%- endif -%}"
)
MARK = "\u2042"  # stands for an answer where templates are tried; no template spells it
# Names under which well-known tokenizers keep a token that is free to pad with.
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<|vision_pad|>")


def load_tokenizer(path: str | Path, where: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id, mended: it ends, pads with a token of its own and renders chats.

    Raises ModelError without an end token, and where a pad token would need an embedding row that cannot be added.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError, ImportError) as error:
        raise unreadable("tokenizer", path, error, where) from None
    if tokenizer.eos_token_id is None:
        raise ModelError(where, f"the tokenizer of {path} has no end token (eos_token), so answers could never end",
                         "set eos_token in its tokenizer_config.json")  # fmt: skip
    if not tokenizer.chat_template:
        tokenizer.chat_template = _default_template(tokenizer)
    try:
        end_of_turn(tokenizer)
    except (TemplateError, TypeError, ValueError) as error:  # templates are code; these are what a faulty one raises
        raise ModelError(where, f"the chat template of {path} does not work ({error})",
                         "mend chat_template.jinja beside its tokenizer") from None  # fmt: skip
    _mend_pad(tokenizer, path, where)
    return tokenizer


def unreadable(what: str, path: str | Path, error: Exception, where: str) -> AccordError:
    """What to raise for the error of a library that cannot read a model or tokenizer: the network's fault, or the user's."""
    if isinstance(error.__cause__, LocalEntryNotFoundError):  # it is not in the cache, and there is nobody to ask
        said = f"no {what} could be read from {path}: there is no such folder, and the hub cannot be reached"
        return EngineError(where, said, "give a folder, or connect to the network")
    like_a_folder = str(path).startswith(("/", ".", "~")) and not Path(path).exists()
    first = "there is no such folder" if like_a_folder else first_line(error).strip()
    said = "" if first.endswith(":") else f" ({first})"
    return ModelError(where, f"no {what} could be read from {path}{said}", "give a model folder or a hub id")


def _mend_pad(tokenizer: PreTrainedTokenizerBase, path: str | Path, where: str) -> None:
    """Give the tokenizer a pad token that is not an end token: with pad = EOS, nothing could learn to end."""
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in stop_ids(tokenizer, path):
        return
    vocab = tokenizer.get_vocab()
    free = [name for name in PAD_NAMES if name in vocab and vocab[name] not in stop_ids(tokenizer, path)]
    if free:
        tokenizer.pad_token = free[0]
        return
    config = _settings(path, AutoConfig, "config.json")
    rows = config.get("vocab_size")
    if "quantization_config" in config and isinstance(rows, int) and len(tokenizer) >= rows:
        raise ModelError(
            where,
            f"the pad token of {path} is its end token, and its quantised weights have no free row for another",
            "set pad_token to an unused token in its tokenizer_config.json, or start from the unquantised model",
        )
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})


def _default_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The default template, with BOS first where the tokenizer puts it before plain text."""
    starts = (
        tokenizer.bos_token_id is not None
        and token_lists(tokenizer, ["a"], special=True)[0][0] == tokenizer.bos_token_id
    )
    return ("{{- bos_token -}}" if starts else "") + DEFAULT_TEMPLATE


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills rows up."""
    return cast(int, tokenizer.pad_token_id)


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The end token (EOS)."""
    return cast(int, tokenizer.eos_token_id)


def stop_ids(tokenizer: PreTrainedTokenizerBase, path: str | Path | None = None) -> set[int]:
    """The tokens that end an answer: EOS, those of the model's generation config, and the template's end of turn."""
    ids = {end_id(tokenizer)}
    if path is not None:
        listed = _settings(path, GenerationConfig, "generation_config.json").get("eos_token_id")
        ids |= {number for number in (listed if isinstance(listed, list) else [listed]) if isinstance(number, int)}
    if tokenizer.chat_template:
        ids.add(end_of_turn(tokenizer))
    return ids


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the chat template puts after an assistant's turn; EOS where it puts none."""
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": MARK}]
    try:
        text = str(tokenizer.apply_chat_template(chat, tokenize=False))
    except TemplateSyntaxError:
        raise
    except TemplateError:  # some want a system turn first
        text = str(tokenizer.apply_chat_template([{"role": "system", "content": "a"}, *chat], tokenize=False))
    after = text.rpartition(MARK)[2]
    found = [(after.find(token), token) for token in tokenizer.all_special_tokens if token in after]
    return cast(int, tokenizer.convert_tokens_to_ids(min(found)[1])) if found else end_id(tokenizer)


def token_lists(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, special: bool = False) -> list[list[int]]:
    """The tokens of each text; without those that a tokenizer adds by itself, unless `special`."""
    found = tokenizer(texts, add_special_tokens=special, return_attention_mask=False)
    return cast(list[list[int]], found["input_ids"])


def identity(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """All that the tokens of a conversation depend on; None where it cannot be told."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    token_lists(tokenizer, [""])  # which puts aside a truncation that its file may ask for
    template = str(tokenizer.chat_template)
    today = str(date.today()) if "strftime_now" in template else ""  # it may write the date into the prompt
    said = [tokenizer.special_tokens_map, tokenizer.split_special_tokens, template, today]
    return json.dumps([tokenizer.backend_tokenizer.to_str(), *said], default=str)


def _settings(path: str | Path, kind: type[AutoConfig] | type[GenerationConfig], file: str) -> dict[str, object]:
    """A model's config.json or generation_config.json, of a folder or of the hub; empty where there is none."""
    folder = Path(path)
    if folder.is_dir():
        found = folder / file
        return json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
    try:
        return kind.from_pretrained(str(path)).to_dict()
    except (OSError, ValueError):
        return {}
