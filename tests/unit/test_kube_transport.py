"""Lines of an answer, however it comes in chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dailctl.kube.transport import joined, object_in


@given(st.lists(st.binary(max_size=6).map(lambda chunk: chunk.replace(b"a", b"\n"))), st.booleans())
def test_lines_are_those_of_the_whole(chunks: list[bytes], unfinished: bool) -> None:
    *whole, rest = b"".join(chunks).split(b"\n")
    expected = [line for line in [*whole, *([rest] if unfinished else [])] if line]
    assert list(joined(chunks, unfinished=unfinished)) == expected


def test_an_answer_is_one_object() -> None:
    assert object_in(b'{"items": []}') == {"items": []}
    for text in (b"null", b"[]", b'"x"', b"<html>", b""):
        with pytest.raises(ValueError):  # noqa: PT011
            object_in(text)
