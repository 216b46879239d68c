"""Instructions whose compliance can be checked by a program: the 25 kinds of IFEval, strict and loose.

Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models (https://arxiv.org/abs/2311.07911). Names,
arguments and verdicts are those of the published checker, also where it could be stricter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import cast

from accord.data.language import CODES
from accord.data.records import Meta
from accord.errors import DataError
from accord.sampler import Rollout
from accord.score import Score
from accord.score.instructions import case, format, keywords, length, whole

# Each takes the answer and, by keyword, the instruction's own arguments.
KINDS: dict[str, Callable[..., bool]] = {
    "keywords:existence": keywords.existence,
    "keywords:frequency": keywords.frequency,
    "keywords:forbidden_words": keywords.forbidden_words,
    "keywords:letter_frequency": keywords.letter_frequency,
    "language:response_language": case.response_language,
    "length_constraints:number_sentences": length.number_sentences,
    "length_constraints:number_paragraphs": length.number_paragraphs,
    "length_constraints:number_words": length.number_words,
    "length_constraints:nth_paragraph_first_word": length.nth_paragraph_first_word,
    "detectable_content:number_placeholders": format.number_placeholders,
    "detectable_content:postscript": format.postscript,
    "detectable_format:number_bullet_lists": format.number_bullet_lists,
    "detectable_format:constrained_response": format.constrained_response,
    "detectable_format:number_highlighted_sections": format.number_highlighted_sections,
    "detectable_format:multiple_sections": format.multiple_sections,
    "detectable_format:json_format": format.json_format,
    "detectable_format:title": format.title,
    "combination:two_responses": whole.two_responses,
    "combination:repeat_prompt": whole.repeat_prompt,
    "startend:end_checker": whole.end_checker,
    "startend:quotation": whole.quotation,
    "change_case:capital_word_frequency": case.capital_word_frequency,
    "change_case:english_capital": case.english_capital,
    "change_case:english_lowercase": case.english_lowercase,
    "punctuation:no_comma": whole.no_comma,
}
Kwargs = Mapping[str, object]


def follows(kind: str, kwargs: Kwargs, text: str) -> bool:
    """Whether an answer follows one instruction; an empty answer follows none. `kwargs` as `checked` returns them."""
    return bool(text.strip()) and KINDS[kind](text, **kwargs)


def strict(text: str, ids: Sequence[str], kwargs: Sequence[Kwargs]) -> list[bool]:
    """Which of its instructions an answer follows as it stands."""
    return [follows(kind, given, text) for kind, given in zip(ids, kwargs, strict=True)]


def loose(text: str, ids: Sequence[str], kwargs: Sequence[Kwargs]) -> list[bool]:
    """Which of its instructions an answer follows in any of its variants."""
    tried = variants(text)
    return [any(follows(kind, given, one) for one in tried) for kind, given in zip(ids, kwargs, strict=True)]


def variants(text: str) -> list[str]:
    """An answer, and without its first line, its last line or both, each with and without asterisks (section 2.2)."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys(cut + [one.replace("*", "") for one in cut]))


def asked(meta: Meta, where: str) -> tuple[list[str], list[Kwargs]]:
    """The instructions that a prompt carries, `instruction_id_list` and `kwargs`; both empty where it carries none."""
    ids, given = meta.get("instruction_id_list", []), meta.get("kwargs", [])
    if not isinstance(ids, list) or not isinstance(given, list) or len(ids) != len(given):
        raise DataError(
            where, "instruction_id_list and kwargs are not two lists of one length", "give each id its kwargs"
        )
    pairs = zip(cast(list[object], ids), cast(list[object], given), strict=True)
    kwargs = [checked(kind, kw, where) for kind, kw in pairs]
    return cast(list[str], ids), kwargs


def checked(kind: object, kwargs: object, where: str) -> Kwargs:
    """The arguments of an instruction without those that are null; DataError unless they are what its kind takes."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(where, f"{kind!r} is no kind of instruction", f"known: {', '.join(KINDS)}")
    given = {} if kwargs is None else kwargs
    if not isinstance(given, dict):
        raise DataError(where, f"the kwargs of {kind} are no table", "give {} where the kind takes none")
    held = {name: value for name, value in cast(dict[str, object], given).items() if value is not None}
    takes = TAKES[kind]
    wrong = [name for name in {**takes, **held} if name not in takes or not ALLOWED[takes[name]][1](held.get(name))]
    if wrong:
        said = ", ".join(f"{name} ({ALLOWED[of][0]})" for name, of in takes.items()) or "no arguments"
        raise DataError(where, f"the kwargs of {kind} do not fit: {', '.join(wrong)}", f"it takes {said}")
    return held


def _parameters(check: Callable[..., bool]) -> dict[str, str]:
    found = inspect.signature(check).parameters.values()
    return {parameter.name: cast(str, parameter.annotation) for parameter in found if parameter.name != "text"}


TAKES = {kind: _parameters(check) for kind, check in KINDS.items()}  # the type of each argument, as it is written
ALLOWED: dict[str, tuple[str, Callable[[object], bool]]] = {
    "str": ("a text", lambda value: isinstance(value, str)),
    "int": ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    "list[str]": (
        "a list of texts",
        lambda value: isinstance(value, list) and all(isinstance(one, str) for one in cast(list[object], value)),
    ),
    "Relation": ('"at least" or "less than"', lambda value: value in ("at least", "less than")),
    "Code": (f"one of {', '.join(CODES)}", lambda value: isinstance(value, str) and value in CODES),
}


def instructions(rollout: Rollout) -> Score:
    """The share of its prompt's instructions that an answer follows, strictly; NaN where the prompt carries none."""
    ids, kwargs = asked(rollout.meta, "instructions")
    verdicts = strict(rollout.text, ids, kwargs)
    missed = [kind for kind, followed in zip(ids, verdicts, strict=True) if not followed]
    value = sum(verdicts) / len(verdicts) if verdicts else nan
    return Score(value, why=f"not followed: {', '.join(missed)}" if missed else "", details={"strict": verdicts})
