"""Bytes, as people read them."""

import pytest

from domain.sizes import size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0 MB"),
        (39_480_000, "39.5 MB"),
        (999_900_000, "999.9 MB"),
        (10**9, "1.00 GB"),
        (16e9, "16.00 GB"),
    ],
)
def test_megabytes_have_one_decimal_and_gigabytes_two(count: float, text: str) -> None:
    assert size(count) == text
