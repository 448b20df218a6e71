"""A head that is known by its bytes says what the parser said, and nothing unclear is learnt."""

import types

import pytest

from mlguard.serving.known_heads import _MOST, KnownHeads

HEAD = b"POST /app/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
ENGINE = types.SimpleNamespace(name="app")


def learnt(piece, length=4):
    heads = KnownHeads()
    heads.learn(piece, ENGINE, [(b"host", b"x")], length)
    return heads


def test_the_same_head_is_known_with_any_body():
    """What was learnt comes back with the new body, also one that looks like the end of a head."""
    heads = learnt(HEAD + b"1234")
    for body in (b"1234", b"abcd", b"\r\n\r\n"):
        head = heads.find(HEAD + body)
        assert (head.engine, head.headers) == (ENGINE, [(b"host", b"x")])
        assert (head.text, head.length, head.whole) == (HEAD, 4, len(HEAD) + 4)


@pytest.mark.parametrize(
    "piece",
    [
        HEAD,
        HEAD[:-1],
        HEAD + b"123",
        HEAD + b"12345",
        HEAD + b"1234" + HEAD + b"1234",
        b"\r\n" + HEAD + b"1234",
        HEAD.replace(b"Host: x", b"Host: y") + b"1234",
        HEAD.replace(b"Host", b"host") + b"1234",
        b"",
        b"\r\n\r\n1234",
    ],
)
def test_anything_else_is_not(piece):
    """Half a request, two of them, one byte more, another spelling: the parser reads those."""
    assert learnt(HEAD + b"1234").find(piece) is None


@pytest.mark.parametrize(
    ("piece", "length"),
    [
        (HEAD + b"12345", 4),
        (HEAD + b"123", 4),
        (HEAD, 4),
        (HEAD, 0),
        (HEAD.replace(b"x\r\n", b"x\n") + b"1234", 4),
        # By some reader the head ends at the bare line feeds, and what follows is another request.
        (HEAD[:-4] + b"\n\n" + HEAD + b"1234", 4),
        (HEAD.replace(b"x", b"x" * 3000) + b"1234", 4),
    ],
)
def test_what_is_unclear_is_not_learnt(piece, length):
    """Another length than was told, no length, bare line feeds, a head of great size."""
    assert learnt(piece, length).find(piece) is None


def test_heads_that_never_come_again_take_no_room():
    """Their number is bounded, and what is asked now is learnt however many came before."""
    heads = KnownHeads()
    for number in range(_MOST * 3 + 1):
        piece = HEAD.replace(b"x", b"%d" % number) + b"1234"
        heads.learn(piece, ENGINE, [], 4)
        assert heads.find(piece) is not None
        assert len(heads._known) <= _MOST
