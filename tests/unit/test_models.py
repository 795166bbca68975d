"""Model ids as clients write them."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from domain.models import ModelId


@pytest.mark.parametrize(
    "text",
    [
        "model",
        "owner/name",
        "mlx-community/Qwen3-0.6B-4bit",
        "a.b_c-d/1.2",
        "with space",
        "日本/模型",
        "x" * 200,
        "name:tag@1",
    ],
)
def test_an_id_is_kept_as_it_is_written(text: str) -> None:
    assert ModelId.parse(text).text == text
    assert str(ModelId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "/",
        "a/",
        "/a",
        "a//b",
        "a/b/c",
        "../x",
        "x/..",
        "..",
        ".",
        "./x",
        ".hidden",
        "owner/.hidden",
        "/etc/passwd",
        "C:\\models\\x",
        "a\\b",
        "..\\x",
        "a\0b",
        "a\nb",
        "a\tb",
        " a",
        "a ",
        "owner /name",
        "a\u2028b",
        "a\u200bb",
        "\ud800",
        "x" * 201,
        "x" * 10_000,
        "a/" * 5_000,
    ],
)
def test_what_can_be_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ModelId.parse(text)
    assert caught.value.param == "model"
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@given(st.text(max_size=12) | st.text("./\\a ~\0", max_size=8))
def test_no_id_leads_out_of_a_folder(text: str) -> None:
    try:
        model = ModelId.parse(text)
    except InvalidRequest:
        return
    for path in (PurePosixPath(model.text), PureWindowsPath(model.text)):
        assert not path.root
        assert ".." not in path.parts
    assert "\0" not in model.text
    assert ModelId.parse(model.text) == model


def test_the_owner_is_what_stands_before_the_slash() -> None:
    assert ModelId.parse("owner/name").owner == "owner"
    assert ModelId.parse("name").owner == ""


def test_ids_sort_by_their_text() -> None:
    texts = ["b", "a/b", "a"]
    assert [str(model) for model in sorted(map(ModelId, texts))] == ["a", "a/b", "b"]
