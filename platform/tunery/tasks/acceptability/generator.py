"""Minimal pairs out of frames and a lexicon."""

from __future__ import annotations

import re
from random import Random

from tunery.tasks.acceptability import lexicon, templates
from tunery.tasks.acceptability.lexicon import Lexicon, Word
from tunery.tasks.acceptability.templates import Frames

_SLOT = re.compile(r"{(\w+?)(_2)?(?:\.\w+)?}")
_CHOICE = re.compile(r"\[([^/\]]*)/([^\]]*)\]")
_ATTEMPTS = 200


def pairs(frames: Frames, words: Lexicon, count: int, rng: Random) -> list[tuple[str, str]]:
    """`count` distinct (acceptable, unacceptable) pairs, as many of each phenomenon as possible, frames in turn."""
    phenomena = sorted(frames)
    made: list[tuple[str, str]] = []
    seen: set[str] = set()
    turns = {name: rng.sample(frames[name], len(frames[name])) for name in phenomena}
    for number in range(count):
        turn, which = divmod(number, len(phenomena))
        cycle = turns[phenomena[which]]
        for attempt in range(_ATTEMPTS):
            pair = _fill(cycle[(turn + attempt // 20) % len(cycle)], words, rng)
            if pair[0] != pair[1] and seen.isdisjoint(pair):
                break
        else:
            raise AssertionError(f"{phenomena[which]} has not enough different sentences for {count} pairs")
        seen.update(pair)
        made.append(pair)
    return made


def sentences(split: str, *, seed: int) -> list[tuple[str, int]]:
    """All sentences of a split, both members of each pair, in a seeded order."""
    frames, words, count = {
        "train": (templates.TRAIN, lexicon.TRAIN, TRAIN_PAIRS),
        "validation": (templates.DEV, lexicon.DEV, DEV_PAIRS),
    }[split]
    rng = Random(f"acceptability/{split}/{seed}")
    made = [
        (text, label) for pair in pairs(frames, words, count, rng) for text, label in zip(pair, (1, 0), strict=True)
    ]
    rng.shuffle(made)
    return made


def _fill(frame: str, words: Lexicon, rng: Random) -> tuple[str, str]:
    drawn: dict[str, Word] = {}
    for name, second in dict.fromkeys(_SLOT.findall(frame)):
        choices = [word for word in words[name] if word != drawn.get(name)]
        drawn[name + second] = rng.choice(choices)
    good, bad = _CHOICE.sub(r"\1", frame), _CHOICE.sub(r"\2", frame)
    return _sentence(good.format(**drawn)), _sentence(bad.format(**drawn))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


TRAIN_PAIRS = 1000
DEV_PAIRS = 250
