"""From bytes to passages to words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamesh.demo.text import counted, decoded, passages, words


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        ("größer".encode(), "größer"),
        ("\ufeffgrößer".encode(), "größer"),
        ("größer".encode("utf-16"), "größer"),
        ("größer".encode("utf-32"), "größer"),
        (b"caf\xe9 noir", "café noir"),
        (b"a\0b", None),
        (b"\xff\xfe\x00", None),
        (bytes(range(128, 256)) + bytes(range(1, 32)), None),
    ],
)
def test_text_is_told_from_what_is_none(content: bytes, text: str | None) -> None:
    assert decoded(content) == text


def test_short_paragraphs_are_joined_and_lines_keep_their_place() -> None:
    text = "\n\nTitle\n\nA short one.\n\n" + "word " * 100 + "\n\n\nThe end\n"
    (first, joined), (second, end) = passages(text)
    assert (first, second) == (3, 10)
    assert joined.split("\n")[:4] == ["Title", "", "A short one.", ""]
    assert end == "The end"


def test_a_long_line_is_divided_and_nothing_of_it_is_lost() -> None:
    text = "start\n" + "x" * 4000 + "\nend"
    found = list(passages(text))
    assert [line for line, _ in found] == [1, 2, 2, 2]
    assert sum(passage.count("x") for _, passage in found) == 4000
    assert found[-1][1].endswith("end")


@given(st.text(alphabet="ab \n", max_size=3000), st.integers(1, 400))
def test_every_line_is_in_one_passage_at_its_number(text: str, factor: int) -> None:
    text = "\n".join(line * factor if len(line) < 4 else line for line in text.split("\n"))
    lines = [line.rstrip() for line in text.split("\n")]
    rebuilt = [""] * len(lines)
    for first, passage in passages(text):
        for offset, line in enumerate(passage.split("\n")):
            rebuilt[first - 1 + offset] += line
    assert rebuilt == lines


def test_words_are_found_in_their_forms() -> None:
    assert words("Suppresses, parsing_it; a 3rd Größe!") == ["suppress", "pars", "it", "3rd", "größ"]
    assert words("suppress parse") == ["suppress", "pars"]
    assert counted("one stream, two streams") == {"one": 1, "stream": 2, "two": 1}
