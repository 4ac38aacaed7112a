"""The content words of train and of dev: no word of the one, in any of its forms, is in the other.

Nouns and adjectives begin with a consonant sound, so that "a" is always right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """`{person}` is the singular, `{person.pl}` the plural."""

    singular: str
    pl: str

    def __str__(self) -> str:
        return self.singular


@dataclass(frozen=True)
class Verb:
    """`{vt}` is the base form; s, past, part and ing are its other forms; `prep` the preposition it wants."""

    base: str
    s: str
    past: str
    part: str
    ing: str
    prep: str = ""

    def __str__(self) -> str:
        return self.base


@dataclass(frozen=True)
class Adjective:
    """`{grade}` is the positive, `{grade.er}` the comparative."""

    positive: str
    er: str

    def __str__(self) -> str:
        return self.positive


@dataclass(frozen=True)
class Pronoun:
    """`{any}` is the subject form; `other` is the reflexive of somebody else."""

    subject: str
    obj: str
    poss: str
    self: str
    other: str

    def __str__(self) -> str:
        return self.subject


Word = str | Noun | Verb | Adjective | Pronoun
Lexicon = Mapping[str, tuple[Word, ...]]

_VOWELS = "aeiou"


def _plural(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    return f"{word[:-1]}ies" if word.endswith("y") and word[-2] not in _VOWELS else f"{word}s"


def _nouns(words: str) -> tuple[Noun, ...]:
    """Nouns, a word each; `man:men` where the plural is irregular."""
    pairs = [word.partition(":") for word in words.split()]
    return tuple(Noun(singular, plural or _plural(singular)) for singular, _, plural in pairs)


def _verb(entry: str) -> Verb:
    """A regular verb `paint`, an irregular one `hide:hid:hidden`, a doubled consonant `drop+`, one with `wait=for`."""
    forms, _, prep = entry.partition("=")
    base, *irregular = forms.split(":")
    doubled = base.endswith("+")
    base = base.rstrip("+")
    stem = base + base[-1] if doubled else base.removesuffix("e")
    past = f"{base[:-1]}ied" if base.endswith("y") and base[-2] not in _VOWELS else f"{stem}ed"
    if irregular:
        return Verb(base, _plural(base), irregular[0], irregular[-1], f"{stem}ing", prep)
    return Verb(base, _plural(base), past, past, f"{stem}ing", prep)


def _verbs(words: str) -> tuple[Verb, ...]:
    return tuple(_verb(entry) for entry in words.split())


def _grades(words: str) -> tuple[Adjective, ...]:
    pairs = [word.partition(":") for word in words.split()]
    return tuple(Adjective(positive, comparative) for positive, _, comparative in pairs)


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split(","))


_HE = Pronoun("he", "him", "his", "himself", "herself")
_SHE = Pronoun("she", "her", "her", "herself", "himself")
_I = Pronoun("I", "me", "my", "myself", "himself")
_WE = Pronoun("we", "us", "our", "ourselves", "themselves")
_THEY = Pronoun("they", "them", "their", "themselves", "ourselves")

_CLOSED: Lexicon = {
    "any": (_HE, _SHE, _I, _WE, _THEY),
    "he": (_HE, _SHE),
    "they": (_WE, _THEY),
    "two": ("two", "three", "many", "several", "these", "those"),
    "many": ("two", "three", "many", "several"),
    "one": ("this", "that", "every", "each", "one", "a"),
    "my": ("my", "your", "his", "her", "our", "their"),
    "can": ("can", "will", "must", "should", "could", "would"),
}
"""The closed classes: the same in both."""

TRAIN: Lexicon = {
    **_CLOSED,
    "woman": _phrases("Anna, Emma, Julia, Laura, Sarah, Alice, Helen, Susan, Rachel, Diana, Olivia, Nora"),
    "man": _phrases("Peter, David, Thomas, Daniel, Simon, Henry, Oliver, Robert, Felix, Oscar, Martin, Victor"),
    "person": _nouns(
        "teacher doctor farmer singer driver lawyer painter baker soldier student neighbor pilot cook sailor "
        "waiter reporter gardener guard friend boy girl nurse woman:women man:men thief:thieves brother clown"
    ),
    "thing": _nouns(
        "letter car chair table window box bottle picture basket key wall fence bike bag shirt cup plate door lamp "
        "machine bridge house ring map knife:knives coat pen story ship spoon carpet mirror clock roof boat tent"
    ),
    "vt": _verbs(
        "paint clean carry hide:hid:hidden repair build:built steal:stole:stolen break:broke:broken buy:bought wash "
        "push drop+ find:found choose:chose:chosen draw:drew:drawn move open close watch design burn lift make:made"
    ),
    "vp": _verbs("help follow meet:met call visit thank praise hear:heard blame greet know:knew:known love"),
    "vi": _verbs(
        "sleep:slept walk smile swim+:swam:swum sing:sang:sung dance run+:ran:run work fall:fell:fallen cry play rest"
    ),
    "vd": _verbs("send:sent show:showed:shown offer lend:lent"),
    "vc": _verbs("believe say:said hope know:knew:known notice hear:heard"),
    "vto": _verbs("want plan+ decide hope refuse try need"),
    "vprep": _verbs("wait=for listen=to look=at talk=to depend=on care=about point=at worry=about apologize=to"),
    "adj": _phrases("tired, happy, rich, brave, hungry, proud, famous, lonely, nervous, sick, polite, busy, young"),
    "adjt": _phrases("red, heavy, new, dirty, beautiful, cheap, large, wooden, small, blue, round, black, perfect"),
    "grade": _grades("tall:taller fast:faster rich:richer brave:braver loud:louder young:younger happy:happier"),
    "place": _phrases("in the kitchen, at school, near the river, in the park, in the city, on the hill, at home"),
    "time": _phrases("yesterday, last week, on Monday, every day, in the morning"),
    "slowly": _phrases("slowly, quickly, loudly, happily"),
}

DEV: Lexicon = {
    **_CLOSED,
    "woman": _phrases("Mary, Linda, Sophie, Karen, Ruth, Clara, Megan, Judy"),
    "man": _phrases("Paul, George, Kevin, Eric, Walter, Jack, Adam, Brian"),
    "person": _nouns(
        "dancer judge plumber tailor hunter scientist professor captain tourist banker child:children visitor cousin "
        "mechanic librarian prince sister policeman:policemen"
    ),
    "thing": _nouns(
        "poem kite bucket blanket statue ladder candle radio necklace puzzle drum wagon sofa guitar report toy pillow "
        "kettle camera ticket postcard shelf:shelves"
    ),
    "vt": _verbs(
        "fix polish forget+:forgot:forgotten destroy take:took:taken throw:threw:thrown lose:lost measure examine "
        "borrow deliver shake:shook:shaken ruin sketch collect copy"
    ),
    "vp": _verbs("admire trust see:saw:seen teach:taught warn remember invite attack"),
    "vi": _verbs("travel jump cough drive:drove:driven eat:ate:eaten speak:spoke:spoken study shout sit+:sat"),
    "vd": _verbs("hand bring:brought sell:sold promise"),
    "vc": _verbs("claim guess suspect insist feel:felt"),
    "vto": _verbs("intend agree learn promise prepare"),
    "vprep": _verbs("laugh=at rely=on complain=about stare=at dream=about argue=with refer=to"),
    "adj": _phrases("kind, sad, strong, clever, jealous, shy, friendly, careful, wise, guilty"),
    "adjt": _phrases("green, tiny, fragile, dusty, modern, strange, pretty, golden, simple"),
    "grade": _grades("strong:stronger wise:wiser kind:kinder slow:slower short:shorter funny:funnier"),
    "place": _phrases("at the station, in the office, behind the barn, on the beach, in the village"),
    "time": _phrases("this afternoon, last year, at night, on Sunday, two months ago"),
    "slowly": _phrases("quietly, gently, badly, carefully"),
}
