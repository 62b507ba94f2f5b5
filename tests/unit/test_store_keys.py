"""Keys: any text becomes one safe segment, and no key leaves the store."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dail_runtime.errors import StoreError
from dail_runtime.store import safe_key
from dail_runtime.store.file import FileStore
from dail_runtime.store.keys import check_key, key_problem
from tests.support.store_contract import HOSTILE_KEYS

ANY_TEXT = st.text(st.characters(), max_size=300)
PATH_LIKE = st.lists(st.sampled_from(["..", ".", "/", "a", "\0", "\n", ".dail", "~", "\\", "é", "ß", "A"]), max_size=12).map("".join)


@pytest.mark.parametrize("user_id", [*HOSTILE_KEYS, "CON", "AIME 2024/I/7", "日本", "\u202etxt.exe", "-rf", "a" * 300])
def test_hostile_ids_become_one_safe_segment(user_id: str) -> None:
    segment = safe_key(user_id)
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,98}[a-z0-9]", segment)
    assert key_problem(segment) is None


def test_ids_that_look_alike_get_different_segments() -> None:
    ids = [
        "a",
        "A",
        "a ",
        " a",
        "a/",
        "a\0",
        "ä",
        "a\u0308",
        "",
        " ",
        "..",
        "/",
        "\ud800",
        "\udfff",
        "x" * 10_000_000,
        "x" * 10_000_001,
        "1",
        "1.0",
        "01",
    ]
    segments = {safe_key(each) for each in ids}
    # Folded, as file systems that ignore case do.
    assert len({segment.casefold() for segment in segments}) == len(ids)


def test_segments_are_readable_and_never_change() -> None:
    # Runs find their own objects by these names: a change would orphan the results of every stored run.
    assert safe_key("AIME 2024/I #7") == "aime-2024-i-7-9cf3ff29dd3ca35cc0c82fde"
    assert safe_key("").isalnum()


@given(st.one_of(ANY_TEXT, PATH_LIKE))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_as_id_stays_below_the_prefix_and_round_trips(tmp_path: Path, user_id: str) -> None:
    root = tmp_path / "root"
    store = FileStore(root).at("run")
    data = user_id.encode("utf-8", "surrogatepass")
    key = f"rollouts/{safe_key(user_id)}.json"
    store.put(key, data)
    assert store.get(key) == data
    assert [info.key for info in store.list()] == [key]
    assert os.listdir(tmp_path) == ["root"]  # noqa: PTH208 (names, not paths)
    assert [path.name for path in root.iterdir()] == ["run"]
    store.delete(key)


@given(st.one_of(ANY_TEXT, PATH_LIKE))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_as_key_is_refused_or_stays_below_the_prefix(tmp_path: Path, key: str) -> None:
    root = tmp_path / "root"
    store = FileStore(root).at("run")
    try:
        store.put(key, b"1")
    except StoreError:
        assert key_problem(key) or len(str(root / key).encode()) > 255
        return
    assert check_key(key) == key
    assert [info.key for info in store.list()] == [key]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert [path.name for path in root.iterdir()] == ["run"]
    store.delete(key)
    assert list(root.iterdir()) == []
