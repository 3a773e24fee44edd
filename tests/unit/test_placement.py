"""Placement: expressions over labels."""

from __future__ import annotations

import pytest

from datamesh.errors import ConfigurationError
from datamesh.model.placement import Placement

LABELS = {"os": "linux", "python": "3.12", "gpu": "2", "zone": "eu", "spot": "", "model": "H200 SXM"}


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("os = linux", True),
        ("os == windows", False),
        ("os != windows", True),
        ("python > 3.8", True),  # by number, not as text
        ("python >= 3.12.0", True),
        ("python < 3.9", False),
        ("gpu >= 1 and os = linux", True),
        ("gpu >= 3 or zone in (us, eu)", True),
        ("not zone in (us, eu)", False),
        ("not (os = windows or os = darwin)", True),
        ("gpu", True),
        ("spot", False),
        ("tpu", False),
        ("tpu >= 1", False),
        ("tpu != 1", False),  # what is not there fits nothing
        ("model = 'H200 SXM'", True),
        ("os = windows and gpu >= 1 or zone = eu", True),  # `and` binds closer
    ],
)
def test_an_expression_is_met_or_not(text: str, admitted: bool) -> None:
    assert Placement.parse(text).admits(LABELS) is admitted


@pytest.mark.parametrize(
    "text", ["os =", "= linux", "os = linux and", "(os = linux", "os in eu", "os ~ linux", "os = linux )", "and"]
)
def test_an_expression_that_cannot_be_read_says_where(text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Placement.parse(text)
