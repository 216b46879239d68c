"""The language of a text, roughly: by its script, and in Latin script by its commonest words."""

from __future__ import annotations

import re
import unicodedata

COMMON = {
    "English": "the of and to a in is that it for you was with on as are this be have not i do can your if but they or an my "
    "what so would at no me how from will there more could some like about",
    "German": "der die das und ist nicht ein eine zu den mit von auf sich für dem ich es im auch",
    "French": "le la les des et est un une que pas pour dans qui vous il je ce sur avec du",
    "Spanish": "el la los las que y es un una por con para no se del lo en como su más",
    "Portuguese": "o a os as que e é um uma não para com do da em por mais se como você",
    "Italian": "il la i le che e è un una non per di con del della sono si come più gli",
    "Dutch": "de het een en van is dat niet ik je met op voor te zijn er aan die maar ook",
}
WORDS = {
    word: [name for name in COMMON if word in COMMON[name].split()] for name in COMMON for word in COMMON[name].split()
}
SCRIPTS = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}
LETTERS = re.compile(r"[^\W\d_]+")


def language(text: str) -> str:
    """The name of a language or script, or `unclear` where there are too few words to tell."""
    words = LETTERS.findall(text[:600].lower())
    if not words:
        return "unclear"
    if not words[0].isascii() and (script := _script("".join(words)[:60])) != "LATIN":
        return SCRIPTS.get(script, script.title())
    votes: dict[str, float] = {}
    for word in words:
        for name in (names := WORDS.get(word, ())):
            votes[name] = votes.get(name, 0.0) + 1 / len(names)
    best = max(votes, key=lambda name: votes[name], default="unclear")
    return best if votes.get(best, 0) >= 0.05 * len(words) else "unclear"


def _script(letters: str) -> str:
    """The commonest script, as Unicode names it; kana tell Japanese from Chinese."""
    names = [unicodedata.name(letter, "?").split(" ")[0] for letter in letters]
    kana = [name for name in names if name in {"HIRAGANA", "KATAKANA"}]
    return kana[0] if len(kana) * 5 > len(names) else max(set(names), key=names.count)
