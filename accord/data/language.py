"""The language of a text: by its script, and where languages share one by their commonest words and their own letters."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# ISO 639-1 code of each language that is told apart, and a script of its own where it has one.
OWN_SCRIPT = {
    "BENGALI": "Bengali", "CJK": "Chinese", "GREEK": "Greek", "GUJARATI": "Gujarati", "GURMUKHI": "Punjabi",
    "HANGUL": "Korean", "HEBREW": "Hebrew", "HIRAGANA": "Japanese", "KANNADA": "Kannada", "KATAKANA": "Japanese",
    "MALAYALAM": "Malayalam", "TAMIL": "Tamil", "TELUGU": "Telugu", "THAI": "Thai",
}  # fmt: skip
CODES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French", "gu": "Gujarati",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "kn": "Kannada", "ko": "Korean", "ml": "Malayalam", "mr": "Marathi", "ne": "Nepali",
    "nl": "Dutch", "no": "Norwegian", "pa": "Punjabi", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
COMMON = {
    "LATIN": {
        "English": "the of and to a in is that it for you was with on as are this be have not i do can your if but they "
        "or an my what so would at no me how from will there more could some like about",
        "German": "der die das und ist nicht ein eine zu den mit von auf sich für dem ich es im auch",
        "French": "le la les des et est un une que pas pour dans qui vous il je ce sur avec du",
        "Spanish": "el la los las que y es un una por con para no se del lo en como su más",
        "Portuguese": "o a os as que e é um uma não para com do da em por mais se como você",
        "Italian": "il la i le che e è un una non per di con del della sono si come più gli",
        "Dutch": "de het een en van is dat niet ik je met op voor te zijn er aan die maar ook",
        "Swedish": "och att det som en på är av för med den till inte om har jag ett var kan eller",
        "Danish": "og at det er en af på til som med den for ikke der jeg et kan har hvad eller",
        "Norwegian": "og å det er en av på til som med den for ikke jeg et kan har hva eller fra",
        "Finnish": "ja on ei että se oli kun mutta hän joka ovat tai niin voi myös minä olen kuin mitä tämä",
        "Polish": "i w na z do się nie to jest że o jak dla po ale od przez za lub są",
        "Czech": "a je v na se to že z do o pro jsou jako ale by nebo si jak není",
        "Croatian": "i je u na se da za su ne od koji što kao ili ali biti iz to nije",
        "Hungarian": "a az és hogy nem is egy meg van ez ha vagy csak de már volt mint azt kell lehet",
        "Romanian": "și de în a la cu pe nu o un este să care din pentru că mai sau au fi",
        "Turkish": "ve bir bu için ile de da ne çok daha olan gibi olarak var ama ben o mi kadar değil",
        "Indonesian": "yang dan di untuk dengan ini itu dari tidak pada adalah saya dalam akan bisa ke atau ada anda oleh",
        "Tagalog": "ang ng sa na mga ay at ko mo ito si kung para hindi siya ako may ka nang isang",
        "Swahili": "na ya wa kwa ni katika za la kuwa cha hii kama au vya yake lakini pia mimi huo sana",
        "Vietnamese": "là và của có cho không một được những các người trong với này đã để tôi khi như bạn",
    },
    "CYRILLIC": {
        "Russian": "и в не на я что с он как это по но из к у за от для так или",
        "Bulgarian": "и на да се за от в е не са че с като си ще по това или до един",
        "Ukrainian": "і в не на що я з у та як це до за він але є про від для або",
    },
    "ARABIC": {
        "Arabic": "في من على إلى أن هذا هذه التي الذي لا ما كان مع عن أو هو هي ذلك و كل",
        "Persian": "و در به از که این است را با برای آن یک می های شما من خود تا هم بود",
        "Urdu": "کے میں کی ہے اور سے کا کو نے پر یہ ہیں کہ اس ایک کر آپ بھی نہیں تھا",
    },
    "DEVANAGARI": {
        "Hindi": "है के में की और से का को हैं पर यह कि नहीं एक भी लिए इस कर ने आप",
        "Marathi": "आहे आणि या एक आहेत हे नाही ते मी तो व होते त्या आपण च तुम्ही हा ही करा साठी",
        "Nepali": "छ र को मा छन् हो यो पनि गर्न लागि एक भएको हुन्छ गर्ने तपाईं छैन म थियो गरेको यस",
    },
}  # fmt: skip
# Letters that few of the languages of a script have: each word with one counts for them as a common word does.
LETTERS = {
    "German": "ß", "Spanish": "ñ", "Polish": "łążśćźęń", "Czech": "ěřůčšž", "Hungarian": "őű", "Romanian": "șțăşţ",
    "Turkish": "ğış", "Portuguese": "ãõ", "French": "œçêû", "Danish": "øæå", "Norwegian": "øæå", "Swedish": "åäö",
    "Finnish": "äö", "Croatian": "đćčžš", "Vietnamese": "ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹđươ",
    "Russian": "ыэё", "Bulgarian": "ъ", "Ukrainian": "іїєґ",
    "Persian": "پچژگی", "Urdu": "ٹڈڑںےہھپچگی", "Arabic": "ةأإيىؤئ",
    "Marathi": "ळ",
}  # fmt: skip
# Endings of words where what Hindi writes apart is a part of the word.
ENDINGS = {"Marathi": "च्या ची चे चा साठी मध्ये ांना ातील", "Nepali": "को मा हरू हरु लाई एको ्छ ्दछ ्नु"}
WORD = re.compile(r"[^\s!-@\[-`{-~¡«»¿‘’“”„…–—،؛؟।、。]+")  # no \w: it leaves out the vowel signs of Indian scripts
ASCII = re.compile(r"[A-Za-z]+")
OTHER = re.compile(r"[^\W\d_a-zA-Z]")


def _votes(table: dict[str, str]) -> dict[str, list[str]]:
    """The languages of a script by word; those that a letter stands for by letter."""
    found: dict[str, list[str]] = {}
    for name, words in table.items():
        for word in dict.fromkeys(words.split()):
            found.setdefault(word, []).append(name)
    return found


WORDS = {script: _votes(table) for script, table in COMMON.items()}
TAILS = tuple((end, name) for name, ends in ENDINGS.items() for end in ends.split())
MARKS = {script: _votes({name: " ".join(LETTERS.get(name, "")) for name in table}) for script, table in COMMON.items()}


def language(text: str, *, first: int | None = 600) -> str:
    """The name of a language, of a script whose language is not known, or `unclear` where there are too few words to tell.

    By the `first` characters of the text (None: all of them).
    """
    text = text[:first].lower()
    script = _script(text)
    if script not in COMMON:
        return OWN_SCRIPT.get(script, script.title()) if script else "unclear"
    words, marks, votes = WORD.findall(text), MARKS[script], dict.fromkeys(COMMON[script], 0.0)
    for word in words:
        names = WORDS[script].get(word, ())
        if not names and not word.isascii():
            names = {name for letter in word if letter in marks for name in marks[letter]}
            names |= {name for end, name in TAILS if word.endswith(end) and name in votes}
        for name in names:
            votes[name] += 1 / len(names)
    best = max(votes, key=lambda name: votes[name])
    if votes[best] >= 0.05 * len(words):
        return best
    return "unclear" if script == "LATIN" else script.title()


def _script(text: str) -> str:
    """The commonest script, as Unicode names it; kana tell Japanese from Chinese; "" without letters."""
    counts: dict[str, int] = {"LATIN": sum(map(len, ASCII.findall(text)))}
    if not text.isascii():
        for letter in OTHER.findall(text):
            name = _script_of(letter)
            counts[name] = counts.get(name, 0) + 1
    kana = counts.get("HIRAGANA", 0) + counts.get("KATAKANA", 0)
    if kana:
        counts["HIRAGANA"] = kana + (counts.pop("CJK", 0) if kana * 4 > counts.get("CJK", 0) else 0)
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else ""


@lru_cache(maxsize=4096)
def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "?").split(" ")[0]
