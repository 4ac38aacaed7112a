"""Scores of generated texts against what they should have been: ROUGE (Lin 2004) and BLEU (Papineni et al. 2002).

English ROUGE is Google's (rouge-score, with its stemmer), Chinese that of rouge-chinese over jieba's words; BLEU is
sacrebleu's, over characters in Chinese. All are from 0 to 1.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from typing import Literal

_ROUGES = {"rouge1": "rouge-1", "rouge2": "rouge-2", "rougeL": "rouge-l"}


def written(answers: Sequence[str], expected: Sequence[str], *, language: Literal["en", "zh"]) -> dict[str, float]:
    """rouge1, rouge2 and rougeL (the mean of the texts' F1), and bleu (of the corpus). An empty answer has 0."""
    rouge = _chinese(answers, expected) if language == "zh" else _english(answers, expected)
    return rouge | {"bleu": _bleu(answers, expected, language)}


def _english(answers: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(_ROUGES), use_stemmer=True)
    scores = [scorer.score(right, answer) for answer, right in zip(answers, expected, strict=True)]
    return {name: statistics.fmean(score[name].fmeasure for score in scores) for name in _ROUGES}


def _chinese(answers: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    import jieba
    from rouge_chinese import Rouge

    jieba.setLogLevel(logging.WARNING)
    rouge = Rouge(metrics=list(_ROUGES.values()))
    found: dict[str, list[float]] = {name: [] for name in _ROUGES}
    for answer, right in zip(answers, expected, strict=True):
        words = [" ".join(word for word in jieba.cut(text) if word.strip()) for text in (answer, right)]
        # The library takes an empty text for a mistake.
        score = rouge.get_scores(*words)[0] if all(words) else None
        for name, theirs in _ROUGES.items():
            found[name].append(float(score[theirs]["f"]) if score else 0.0)
    return {name: statistics.fmean(values) for name, values in found.items()}


def _bleu(answers: Sequence[str], expected: Sequence[str], language: str) -> float:
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize="zh" if language == "zh" else "13a")
    return float(bleu.corpus_score(list(answers), [list(expected)]).score) / 100
