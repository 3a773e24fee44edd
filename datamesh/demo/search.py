"""Index: passages by their words, and the best of them for a question."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from datamesh.demo.text import words

_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75
"""k1 and b: how fast a repeated word stops to count more, and how much long passages are held back."""
_EXCERPT_LINES = 4


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that answers.

    Attributes:
        score: Higher is better; only those of one question compare.
        path: Of the file.
        line: First line of the excerpt, from 1.
        excerpt: The lines of the passage that have most of the words.
    """

    score: float
    path: str
    line: int
    excerpt: str


class Index:
    """Rank passages by BM25.

    Source:
        Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), equation 3.15; the
        weight of a word is that of Lucene, which is never below zero.
    """

    def __init__(self) -> None:
        self._places: list[tuple[str, int, str]] = []
        self._lengths: list[int] = []
        self._postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def terms(self) -> int:
        """How many different words there are."""
        return len(self._postings)

    def add(self, path: str, line: int, text: str, counts: Mapping[str, int]) -> None:
        """Add a passage.

        Args:
            path: Of its file.
            line: Its first line, from 1.
            text: Of the passage.
            counts: How often each word stands in it.
        """
        place = len(self._places)
        self._places.append((path, line, text))
        self._lengths.append(sum(counts.values()))
        for word, count in counts.items():
            self._postings[word].append((place, count))

    def search(self, question: str, *, limit: int = 5) -> list[Hit]:
        """Return the passages that answer best, the best first; none if no passage has any of the words."""
        asked = set(words(question))
        scores: defaultdict[int, float] = defaultdict(float)
        mean = sum(self._lengths) / max(1, len(self._lengths))
        for word in asked:
            found = self._postings.get(word, ())
            weight = math.log(1 + (len(self) - len(found) + 0.5) / (len(found) + 0.5))
            for place, count in found:
                length = 1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * self._lengths[place] / mean
                scores[place] += weight * count * (_SATURATION + 1) / (count + _SATURATION * length)
        # Equal scores in the order of the files, whatever order they arrived in.
        best = heapq.nsmallest(limit, scores, key=lambda place: (-scores[place], self._places[place]))
        return [self._hit(place, scores[place], asked) for place in best]

    def _hit(self, place: int, score: float, asked: set[str]) -> Hit:
        path, first, text = self._places[place]
        lines = text.split("\n")
        found = [set(words(line)) & asked for line in lines]

        def value(start: int) -> tuple[int, int]:
            window = found[start : start + _EXCERPT_LINES]
            return len(set().union(*window)), sum(map(len, window))

        starts = [start for start in range(max(1, len(lines) - _EXCERPT_LINES + 1)) if lines[start]]
        start = max(starts, key=value)
        return Hit(score, path, first + start, "\n".join(lines[start : start + _EXCERPT_LINES]).rstrip())
