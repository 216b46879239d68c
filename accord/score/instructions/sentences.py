"""Sentences and words of English as NLTK's tokenisers count them, which IFEval's verdicts rest on; no NLTK, no model file.

Sentences follow Punkt (Kiss & Strunk 2006, https://aclanthology.org/J06-4003): a word before a full stop is an abbreviation or
it ends the sentence. What Punkt learned from newspapers is here a short table. As there, `e.g.` and `etc.` are none.
"""

# ruff: noqa: SIM905  (tables of words)

from __future__ import annotations

import re

# What Punkt's English model takes for abbreviations, of those in common use.
ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof gen col lt maj adm sen rep reps jr sr st messrs inc ltd co cos corp bros cie vs ft yr mg "
    "jan feb aug sep sept oct nov dec tues wed fri ave a.m p.m u.s u.s.a u.s.s.r u.k u.n d.c n.y l.a a.d ph.d m.b.a "
    "ala ariz calif colo conn fla ga ill kan ky mich minn nev n.c n.d n.h n.j n.m okla ok ore pa r.i s.c tenn va vt "
    "wash wis w.va".split()
)
# Words that begin a sentence where they are capitalised, also after an abbreviation or an ellipsis.
STARTERS = frozenset(
    "the it he she they we you this these those there in if when while although though but however so since thus "
    "moreover meanwhile instead indeed nevertheless nonetheless even some many most both despite under among according "
    "yet similarly nor i what why how where who then let is are was did does do can could would should".split()
)
# Words that it does not part from a number before them, wherever it met them: "6. Business", "3. Who".
ORDINAL = frozenset(
    "business commodities corrections credit dividend financing international letters review who".split()
)
CLOSING = r"[)\";}\]*:@'({\[!?]"  # characters that a word ends at
MARK = re.compile(rf"[.?!](?={CLOSING}|\s+\S)")  # what may end a sentence
TOKEN = re.compile(
    r"-{2,}|\.{2,}|[^\s(\"`{\[:;&#*@)}\]\-,]\S*?"
    rf"(?=\s|$|{CLOSING}|-{{2,}}|\.{{2,}}|,(?:$|\s|{CLOSING}|-{{2,}}|\.{{2,}}))|\S"
)
TAIL = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)", re.MULTILINE)  # what belongs to the sentence before it
SPACE = re.compile(r"\s")
NEXT = re.compile(r"\s*(\S+)")
NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the space around them."""
    marks = [match.end() for match in MARK.finditer(text)]
    start, found = 0, []
    for end, later in zip(marks, [*marks[1:], 0], strict=False):
        if end < start or (later and not SPACE.search(text, end, later)):
            continue  # within what has been cut, or the last mark of its word decides
        last = max(text.rfind(space, start, end) for space in " \n\t\r")
        ahead = NEXT.match(text, end)
        following, begins = (ahead[0].strip(), ahead.start(1)) if ahead else ("", end)
        if _ends(text[max(last + 1, start) : end], following if begins > end else following[:1]):
            tail = TAIL.match(text, begins)
            found.append(text[start : tail.end() if tail else end].strip())
            start = tail.end() if tail else begins
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


def _ends(before: str, following: str) -> bool:
    """Whether a sentence ends inside or after a word, given what follows it."""
    tokens = TOKEN.findall(before)
    pairs = zip(tokens, [*tokens[1:], (TOKEN.findall(following) or [""])[0]], strict=True)
    return any(_breaks(token, after) for token, after in pairs)


def _breaks(token: str, after: str) -> bool:
    if token in ("?", "!", "."):
        return True
    if not token.endswith("."):
        return False
    word, starts = token[:-1].lower(), after[:1].isupper() and after.lower() in STARTERS
    if token.endswith(".."):
        return starts
    if len(word) == 1 and word.isalpha():  # "J. Smith"; "twice x. The"
        return starts and word in "abijoquxyz"
    if word in ABBREVIATIONS or word.rpartition("-")[2] in ABBREVIATIONS:
        return starts
    if NUMBER.fullmatch(word):  # "1. one" counts something, "1. One" begins a list's item
        return not (after[:1].islower() or after in (";", ":", ",", ".", "!", "?") or after.lower() in ORDINAL)
    return True
