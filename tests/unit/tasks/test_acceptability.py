from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from tunery import tasks
from tunery.errors import InputError
from tunery.tasks.acceptability import generator, lexicon, rows, templates


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


FUNCTION_WORDS = words(
    """a the this that these those every each one many two three several my your his her our their
    i he she we they it me him us them myself himself herself ourselves themselves
    am is are was were be been has have had do does did can could will would must should not never always
    to in on at by for with from of near behind about than as and or but what when where who why how that if
    there very more most last s"""
)
"""The closed classes, which no two samples of English can divide between them."""

SIX = tuple(example.text for example in tasks.get("acceptability").examples)
"""What the quickstart asks its champion."""


@pytest.fixture(scope="module")
def train() -> list[tuple[str, int]]:
    return rows("train", seed=0)


@pytest.fixture(scope="module")
def dev() -> list[tuple[str, int]]:
    return rows("validation", seed=0)


def test_the_sizes_are_those_the_task_names(train: list[tuple[str, int]], dev: list[tuple[str, int]]) -> None:
    assert tasks.get("acceptability").rows == {"train": len(train), "validation": len(dev)}


def test_labels_are_balanced_and_no_sentence_is_there_twice(
    train: list[tuple[str, int]], dev: list[tuple[str, int]]
) -> None:
    for split in (train, dev):
        assert Counter(label for _, label in split) == {0: len(split) // 2, 1: len(split) // 2}
        assert len({text for text, _ in split}) == len(split)
    assert {text for text, _ in train}.isdisjoint(text for text, _ in dev)


def test_the_same_seed_gives_the_same_sentences_and_another_gives_others() -> None:
    assert rows("train", seed=1) == rows("train", seed=1)
    assert len(set(rows("validation", seed=1)) & set(rows("validation", seed=2))) < 50


def test_content_words_are_held_apart() -> None:
    """Of every sentence of several seeds, not only of the lexicon: a frame may hold words of its own."""
    of = {
        split: {w for seed in range(5) for text, _ in rows(split, seed=seed) for w in words(text)} for split in SPLITS
    }
    assert of["train"] & of["validation"] <= FUNCTION_WORDS
    assert len(of["train"] - FUNCTION_WORDS) > 200
    assert len(of["validation"] - FUNCTION_WORDS) > 100


SPLITS = ("train", "validation")


def bare(frame: str) -> str:
    """A frame without its words and without which one of a class: what is the same after a renaming."""
    return re.sub(r"_2\b", "", frame).lower()


def test_frames_are_held_apart() -> None:
    frames = {name: [bare(frame) for group in of.values() for frame in group] for name, of in FRAMES.items()}
    assert set(frames["train"]).isdisjoint(frames["validation"])
    for name in SPLITS:
        assert len(set(frames[name])) == len(frames[name])


FRAMES = {"train": templates.TRAIN, "validation": templates.DEV}
LEXICONS = {"train": lexicon.TRAIN, "validation": lexicon.DEV}


def test_there_are_the_same_phenomena_in_both_and_enough_of_them() -> None:
    assert set(templates.TRAIN) == set(templates.DEV)
    assert len(templates.TRAIN) >= 8
    assert {"agreement", "pronoun case", "missing preposition", "determiner and noun"} <= set(templates.TRAIN)


@pytest.mark.parametrize("split", SPLITS)
def test_every_frame_makes_proper_pairs(split: str) -> None:
    for phenomenon, frames in FRAMES[split].items():
        for frame in frames:
            for good, bad in generator.pairs({phenomenon: (frame,)}, LEXICONS[split], 5, Random(1)):
                assert good != bad
                for text in (good, bad):
                    assert re.fullmatch(r"[A-Z][A-Za-z' ]*[.?]", text), text
                    assert "  " not in text
                    assert not re.search(r"\b[Aa] [aeiou]", text), f"'a' before a vowel: {text}"


@pytest.mark.parametrize("split", SPLITS)
def test_both_members_of_a_pair_are_in_the_split(split: str) -> None:
    made = rows(split, seed=0)
    pairs = generator.pairs(FRAMES[split], LEXICONS[split], len(made) // 2, Random(f"acceptability/{split}/0"))
    assert sorted(made) == sorted((text, label) for pair in pairs for text, label in zip(pair, (1, 0), strict=True))


def test_every_phenomenon_has_its_share() -> None:
    made = generator.pairs(templates.DEV, lexicon.DEV, len(templates.DEV) * 10, Random(0))
    for number, phenomenon in enumerate(sorted(templates.DEV)):
        alone = generator.pairs({phenomenon: templates.DEV[phenomenon]}, lexicon.DEV, 1, Random(0))
        assert alone
        assert len(made[number :: len(templates.DEV)]) == 10


def test_the_readmes_examples_and_their_content_words_are_in_neither() -> None:
    content = {"book", "written", "john", "gave", "present", "think", "smart"}
    for split in SPLITS:
        for seed in range(5):
            texts = [text for text, _ in rows(split, seed=seed)]
            assert set(SIX).isdisjoint(texts)
            assert content.isdisjoint(word for text in texts for word in words(text))


def test_no_word_gives_the_label_away(dev: list[tuple[str, int]]) -> None:
    """The members of a pair differ by little, so that counting words cannot do well."""
    seen: dict[str, Counter[int]] = {}
    for text, label in rows("train", seed=0):
        for word in words(text):
            seen.setdefault(word, Counter())[label] += 1
    right = 0
    for text, label in dev:
        votes = [(seen[word][1] + 1) / (seen[word].total() + 2) - 0.5 for word in words(text) if word in seen]
        right += (sum(votes) > 0) == bool(label)
    assert right / len(dev) < 0.65


def test_it_comes_through_the_catalogue() -> None:
    generated = tasks.generate("acceptability", "validation", seed=3)
    assert [(text, int(label)) for text, pair, label in generated if pair is None] == rows("validation", seed=3)
    with pytest.raises(
        InputError, match=r"task 'cola' has no embedded data: set data.source .*; embedded: acceptability"
    ):
        tasks.generate("cola", "train", seed=0)
