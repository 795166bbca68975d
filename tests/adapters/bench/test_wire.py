"""HTTP and events out of bytes: any split of the same bytes says the same."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bench.wire import BadResponse, Decoder, events

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
BODY = b"data: {}\n\ndata: caf\xc3\xa9\r\n\r\n: a comment\n\ndata:[DONE]\n\n"


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    encoded = b"".join(b"%X;x=1\r\n%b\r\n" % (len(one), one) for one in pieces)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + encoded + b"0\r\nA: b\r\n\r\n"


RESPONSES = [
    chunked(BODY, 7),
    chunked(BODY, 1000),
    HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    HEAD + b"\r\n" + BODY,
    b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"\r\n" + BODY,
]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % len(data) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(st.sampled_from(RESPONSES), st.lists(st.integers(0, 500), max_size=20))
def test_any_split_gives_the_same(response: bytes, cuts: list[int]) -> None:
    decoder, reads = Decoder(), []
    for time, data in enumerate(split(response, cuts)):
        reads.append((float(time), decoder.feed(data)))
    assert decoder.status == 200
    assert decoder.headers["content-type"] == "text/event-stream"
    assert b"".join(data for _, data in reads) == BODY
    assert decoder.ends_here()
    assert decoder.done == (b"Length" in response or b"chunked" in response)
    found = list(events(reads))
    assert [data for _, data in found] == [b"{}", b"caf\xc3\xa9", b"[DONE]"]
    assert [time for time, _ in found] == sorted(time for time, _ in found)


@given(st.sampled_from(RESPONSES[:3]), st.data())
def test_an_early_end_is_noticed(response: bytes, data: st.DataObject) -> None:
    decoder = Decoder()
    decoder.feed(response[: data.draw(st.integers(0, len(response) - 1))])
    assert not decoder.ends_here()


def test_a_last_line_without_its_end_counts() -> None:
    assert list(events([(1.0, b"data: a\n"), (2.0, b"data: b")])) == [(1.0, b"a"), (2.0, b"b")]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
    ],
)
def test_what_is_no_http_is_said_so(data: bytes) -> None:
    with pytest.raises(BadResponse):
        Decoder().feed(data)


@given(st.binary())
def test_no_other_exception(data: bytes) -> None:
    for start in (b"", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"):
        try:
            Decoder().feed(start + data)
        except BadResponse:
            pass
