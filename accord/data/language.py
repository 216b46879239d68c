"""The language of a text: by its script, and where languages share one by their commonest words and their own letters."""

# ruff: noqa: RUF001  (letters of other scripts that look like Latin ones)

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
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
        "German": "der die das und ist nicht ein eine zu den mit von auf sich für dem ich es im auch wir ihr sie er "
        "werden wird wurde sind war haben hat kann oder aber wie als bei nach aus um nur noch durch alle diese "
        "dieser bitte wenn",
        "French": "le la les des et est un une que pas pour dans qui vous il je ce sur avec du au aux ne se ou mais "
        "par sont être cette ces nous elle ils son sa ses leur plus tout fait comme si même très aucun été peut",
        "Spanish": "el la los las que y es un una por con para no se del lo en como su más al o si pero sus le "
        "este esta esto son fue ser ha hay muy todo también hasta cuando sin sobre entre nos desde puede tiene",
        "Portuguese": "o a os as que e é um uma não para com do da em por mais se como você ao aos no na nos das dos "
        "foi são ser está este esta esse isso ou mas muito também já pelo pela sem seu sua nós eu ele ela pode",
        "Italian": "il la i le che e è un una non per di con del della sono si come più gli lo nel nella al alla "
        "alle dal dalla dei delle sul sulla ma anche questo questa questi essere ho ha o ed mi ti ci se tutto",
        "Dutch": "de het een en van is dat niet ik je met op voor te zijn er aan die maar ook hij wij zij we ons "
        "deze dit als kan worden wordt werd naar bij uit om tot door heeft hebben geen of nog wel moet alle uw",
        "Swedish": "och att det som en på är av för med den till inte om har jag ett var kan eller vi du han hon men "
        "så från ska vid denna detta dessa alla måste där när hur vad efter mot under bara",
        "Danish": "og at det er en af på til som med den for ikke der jeg et kan har hvad eller vi du han men så fra "
        "skal ved denne dette disse alle hvis når hvordan efter mod kun ingen blev være",
        "Norwegian": "og å det er en av på til som med den for ikke jeg et kan har hva eller fra vi du han men så "
        "ved denne dette disse alle hvis når hvordan etter mot bare ingen ble være må noe",
        "Finnish": "ja on ei että se oli kun mutta hän joka ovat tai niin voi myös minä olen kuin mitä tämä eivät "
        "sinä me te he nyt vain kaikki sitä tässä jos vielä sekä kanssa voit täytyy pitää ole olla",
        "Polish": "i w na z do się nie to jest że o jak dla po ale od przez za lub są być może tym tego tej te ten "
        "ta jego jej już tylko był została musi możesz czy które który",
        "Czech": "a je v na se to že z do o pro jsou jako ale by nebo si jak není jste jsem být bude může tento tato "
        "toto které který tak už jen při byl musí",
        "Croatian": "i je u na se da za su ne od koji što kao ili ali biti iz to nije jest jesu bude može ovaj ova "
        "ovo koja koje samo već mora nema nego sam smo ste",
        "Hungarian": "a az és hogy nem is egy meg van ez ha vagy csak de már volt mint azt kell lehet ezt nincs lesz "
        "minden még úgy pedig azonban után",
        "Romanian": "și de în a la cu pe nu o un este să care din pentru că mai sau au fi sunt fost poate acest "
        "această acesta ori dacă doar trebuie nici prin după între",
        "Turkish": "ve bir bu için ile de da ne çok daha olan gibi olarak var ama ben o mi kadar değil olmalı lütfen "
        "bunu şu biz siz onlar çünkü veya hiç her şey sonra önce",
        "Indonesian": "yang dan di untuk dengan ini itu dari tidak pada adalah saya dalam akan bisa ke atau ada anda "
        "oleh harus telah lebih sudah belum hanya jika maka atas kami kita mereka seperti sebagai bukan",
        "Tagalog": "ang ng sa na mga ay at ko mo ito si kung para hindi siya ako may ka nang isang",
        "Swahili": "na ya wa kwa ni katika za la kuwa cha hii kama au vya yake lakini pia mimi huo sana mwa zake "
        "wake wao wewe sisi ili kila lazima hakuna tafadhali ndiyo hapana baada kabla bila hiki hizo kutoka kuna mtu "
        "watu sasa tu ndani hilo ambayo ambaye hivyo",
        "Vietnamese": "là và của có cho không một được những các người trong với này đã để tôi khi như bạn",
    },
    "CYRILLIC": {
        "Russian": "и в не на я что с он как это по но из к у за от для так или а быть может должно этот эта эти "
        "которые который только есть нет все вы мы они бы же ли",
        "Bulgarian": "и на да се за от в е не са че с като си ще по това или до един а но бъде може трябва този тази "
        "тези които който при само има няма",
        "Ukrainian": "і в не на що я з у та як це до за він але є про від для або а бути може має цей ця ці які який "
        "тільки немає всі ви ми вони",
    },
    "ARABIC": {
        "Arabic": "في من على إلى أن هذا هذه التي الذي لا ما كان مع عن أو هو هي ذلك و كل",
        "Persian": "و در به از که این است را با برای آن یک می های شما من خود تا هم بود",
        "Urdu": "کے میں کی ہے اور سے کا کو نے پر یہ ہیں کہ اس ایک کر آپ بھی نہیں تھا",
    },
    "DEVANAGARI": {
        "Hindi": "है के में की और से का को हैं पर यह कि नहीं एक भी लिए इस कर ने आप ही तो जो या हो गया गई रहा रहे "
        "सकते सकता होता होती करने करते साथ अपने बाद जब हम मैं वह थी थे",
        "Marathi": "आहे आणि या एक आहेत हे नाही ते मी तो व होते त्या आपण च तुम्ही हा ही करा साठी किंवा पण असे असा "
        "असते काही केले कोणत्याही मला आम्ही",
        "Nepali": "छ र को मा छन् हो यो पनि गर्न लागि एक भएको हुन्छ गर्ने तपाईं छैन म थियो गरेको यस वा हुनु पर्छ तपाई "
        "अनि तर भने",
    },
}  # fmt: skip
# Letters that few of the languages of a script have: each word with one counts for them as a common word does.
LETTERS = {
    "German": "ß", "Spanish": "ñ", "Polish": "łążśćźęń", "Czech": "ěřůčšž", "Hungarian": "őű", "Romanian": "șțăşţ",
    "Turkish": "ğışç", "Portuguese": "ãõ", "French": "œçêûèà", "Italian": "òùìèà", "Danish": "øæå",
    "Norwegian": "øæå", "Swedish": "åäö", "Finnish": "äö", "Croatian": "đćčžš",
    "Vietnamese": "ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹđươ",
    "Russian": "ыэё", "Bulgarian": "ъ", "Ukrainian": "іїєґ",
    "Persian": "پچژگی", "Urdu": "ٹڈڑںےہھپچگی", "Arabic": "ةأإيىؤئ",
    "Marathi": "ळ", "Hindi": "़ड़ढ़",
}  # fmt: skip
# Endings that count as a common word does: of Latin script those of nouns and verbs, of Devanagari what Hindi writes apart.
ENDINGS = {
    "English": "ing tion ed ly ness ght", "German": "ung ungen lich isch keit heit", "French": "eux ement tés eur",
    "Spanish": "ción ciones dad ando iendo ados", "Portuguese": "ção ções dade ndo ados inho",
    "Italian": "zione zioni ità ella etta ezza ggio tto tti cche chi ano", "Dutch": "ijk ijn eerd oek aar heid",
    "Swedish": "ningar ning arna igt", "Finnish": "ssa ssä sta stä lla llä een nen kset", "Polish": "ści ego ych anie",
    "Hungarian": "ban ben nak nek ság ség", "Romanian": "ului elor ație ilor", "Turkish": "lar ler dir ması mesi",
    "Indonesian": "kan annya inya", "Marathi": "च्या ची चे चा साठी मध्ये ांना ातील", "Nepali": "को मा हरू हरु लाई एको ्छ ्दछ ्नु",
}  # fmt: skip
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
MARKS = {script: _votes({name: " ".join(LETTERS.get(name, "")) for name in table}) for script, table in COMMON.items()}
TAILS = {script: _votes({name: ENDINGS.get(name, "") for name in table}) for script, table in COMMON.items()}


def language(text: str, *, first: int | None = 600) -> str:
    """The name of a language, of a script whose language is not known, or `unclear` where there are too few words to tell.

    By the `first` characters of the text (None: all of them).
    """
    text = text[:first].lower()
    script = _script(text)
    if script not in COMMON:
        return OWN_SCRIPT.get(script, script.title()) if script else "unclear"
    words, known, votes = WORD.findall(text), WORDS[script], dict.fromkeys(COMMON[script], 0.0)
    telling = 0
    for word in words:
        names = known.get(word) or _looks(word, script)
        telling += bool(names)
        for name in names:
            votes[name] += 1 / len(names)
    if telling and telling >= 0.05 * len(words):
        return max(votes, key=lambda name: votes[name])
    return "unclear" if script == "LATIN" else script.title()


def _looks(word: str, script: str) -> Collection[str]:
    """The languages that a word looks like, by its letters or its ending."""
    names: set[str] = set()
    if script != "LATIN" or not word.isascii():
        marks = MARKS[script]
        names = {name for letter in word if letter in marks for name in marks[letter]}
    tails = TAILS[script]
    for size in (2, 3, 4, 5):
        names.update(tails.get(word[-size:], ()) if len(word) > size + 1 else ())
    return names


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
