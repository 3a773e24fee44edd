"""The ranked index of the demo, and the files that it reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datamesh.demo.corpus import default_files, found_files
from datamesh.demo.search import Hit, Index
from datamesh.demo.text import counted
from datamesh.errors import ConfigurationError

PASSAGES = {
    "rare.txt": "The lease of a member ends.",
    "often.txt": "A stream, a stream, and a stream of streams.",
    "once.txt": "One stream that has an end, after a good many other words which say nothing about it at all.",
    "none.txt": "Nothing to see.",
}


def index_of(passages: dict[str, str]) -> Index:
    index = Index()
    for path, text in passages.items():
        index.add(path, 1, text, counted(text))
    return index


def ranked(question: str) -> list[str]:
    return [hit.path for hit in index_of(PASSAGES).search(question)]


def test_what_has_a_word_more_often_in_fewer_words_comes_first() -> None:
    assert ranked("streams") == ["often.txt", "once.txt"]


def test_a_rare_word_weighs_more_than_a_frequent_one() -> None:
    assert ranked("stream lease")[0] == "rare.txt"


def test_no_word_in_common_is_no_hit() -> None:
    assert ranked("zebra") == []
    assert ranked("") == []
    assert Index().search("stream") == []


def test_the_score_is_that_of_bm25() -> None:
    index = index_of({"a": "red green", "b": "blue blue blue blue"})
    (hit,) = index.search("red")
    # idf ln(1 + (2 - 1 + 0.5) / (1 + 0.5)), one occurrence, two words where the mean is three.
    assert hit.score == pytest.approx(0.693147 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / 3)), rel=1e-5)


def test_equal_scores_are_in_the_order_of_their_places_whatever_came_first() -> None:
    places = [("b", 1), ("a", 9), ("a", 2)]
    for order in (places, places[::-1]):
        index = Index()
        for path, line in order:
            index.add(path, line, "same words", {"same": 1, "word": 1})
        assert [(hit.path, hit.line) for hit in index.search("same")] == [("a", 2), ("a", 9), ("b", 1)]


def test_the_excerpt_is_where_the_words_are() -> None:
    lines = [f"line {number}" for number in range(10, 30)]
    lines[12] = "here is the answer"
    index = Index()
    index.add("f", 10, "\n".join(lines), counted("\n".join(lines)))
    (hit,) = index.search("answer")
    assert hit == Hit(hit.score, "f", 19, "line 19\nline 20\nline 21\nhere is the answer")


def test_files_of_folders_are_found_once_in_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", ".hidden", ".git/x", "a/.y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = found_files([tmp_path, tmp_path / "b.txt", tmp_path / ".hidden"])
    assert [os.path.relpath(path, tmp_path) for path in found] == ["b.txt", "a/z.txt", ".hidden"]


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file or folder"):
        found_files([tmp_path / "nothing"])


def test_documentation_of_every_installation_is_found() -> None:
    found = default_files()
    assert any(path.endswith("contextlib.py") for path in found)
    assert any(path.endswith("METADATA") for path in found)
    assert not any("/test/" in path for path in found)
