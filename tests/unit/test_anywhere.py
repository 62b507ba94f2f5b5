"""report and fetch find a run below the store first, and say nothing of clusters to people who have none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import dailctl


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)


@pytest.mark.parametrize("verb", ["report", "fetch"])
def test_without_a_cluster_a_missing_run_is_missing_in_the_store(verb: str, tmp_path: Path) -> None:
    said = dailctl(verb, "nope", "--store", tmp_path, cwd=tmp_path)
    assert (said.code, len(said.errors)) == (2, 1)
    assert "no run was started at" in said.err
    assert "kube" not in said.err


@pytest.mark.parametrize("verb", ["report", "fetch"])
def test_a_cluster_that_was_asked_for_has_to_be_there(verb: str, tmp_path: Path) -> None:
    said = dailctl(verb, "nope", "--kubeconfig", tmp_path / "none", cwd=tmp_path)
    assert (said.code, len(said.errors)) == (9, 1)
    assert "there is no such kubeconfig" in said.err


@pytest.mark.parametrize("words", [["get"], ["describe", "x"], ["doctor"], ["gc"], ["watch", "x"], ["events", "x"], ["logs", "x"]])
def test_every_verb_for_clusters_says_what_is_missing(words: list[str], tmp_path: Path) -> None:
    said = dailctl(*words, cwd=tmp_path)
    assert (said.code, len(said.errors)) == (9, 1)
    assert "there is no kubeconfig" in said.err
