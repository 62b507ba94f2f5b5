"""Which cluster, as whom: kubeconfigs, merged ones, login programs, and what is wrong with them in a sentence."""

from __future__ import annotations

import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dail_runtime.errors import ClusterError
from dailctl.kube import load_access
from dailctl.kube.errors import ApiError, Conflict, Forbidden, Gone, Invalid, NotFound, Unauthorized, api_error

ASKED = "apply jobs.batch x in namespace ml"


def kubeconfig(path: Path, user: dict[str, Any] | None = None, *, cluster: dict[str, Any] | None = None, context: str = "lab") -> Path:
    """A kubeconfig with one context."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": context,
                "contexts": [{"name": context, "context": {"cluster": "c", "user": "jane", "namespace": "ml"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443/", **(cluster or {})}}],
                "users": [{"name": "jane", "user": user or {}}],
            }
        )
    )
    return path


def plugin(folder: Path, status: dict[str, Any], *, code: int = 0) -> dict[str, Any]:
    """An exec entry whose program writes down each call."""
    program = folder / "login.py"
    program.write_text(
        f"import json, os, sys\nopen({str(folder / 'calls')!r}, 'a').write(os.environ['KUBERNETES_EXEC_INFO'] + '\\n')\n"
        f"print(json.dumps({{'kind': 'ExecCredential', 'status': {status!r}}}))\nsys.exit({code})\n"
    )
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(program)]}}


@pytest.fixture(autouse=True)
def _no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_current_context_decides(tmp_path: Path) -> None:
    access = load_access(kubeconfig(tmp_path / "config", {"token": "secret"}))
    assert (access.server, access.namespace, access.user, access.context) == ("https://10.0.0.1:6443", "ml", "jane", "lab")
    assert access.token(False) == "secret"
    assert access.tls is not None
    assert access.tls.verify_mode == ssl.CERT_REQUIRED


def test_a_namespace_may_be_asked_for(tmp_path: Path) -> None:
    assert load_access(kubeconfig(tmp_path / "config"), namespace="other").namespace == "other"


def test_several_files_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = kubeconfig(tmp_path / "one", context="first"), kubeconfig(tmp_path / "two", {"token": "two"}, context="second")
    monkeypatch.setenv("KUBECONFIG", f"{one}:{tmp_path / 'missing'}:{two}")
    assert load_access().context == "first"
    assert load_access(context="second").context == "second"


def test_a_token_in_a_file_is_read_from_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    access = load_access(kubeconfig(tmp_path / "config", {"tokenFile": "token"}))
    assert access.token(False) == "from a file"
    (tmp_path / "token").write_text("renewed")
    assert access.token(False) == "from a file"
    assert access.token(True) == "renewed"


def test_a_login_program_is_asked_once_and_again_when_its_token_is_refused_or_expires(tmp_path: Path) -> None:
    user = plugin(tmp_path, {"token": "t", "expirationTimestamp": "2099-01-01T00:00:00Z"})
    access = load_access(kubeconfig(tmp_path / "config", user))
    assert [access.token(False), access.token(False)] == ["t", "t"]
    calls = tmp_path / "calls"
    assert len(calls.read_text().splitlines()) == 1
    assert json.loads(calls.read_text())["kind"] == "ExecCredential"
    access.token(True)
    assert len(calls.read_text().splitlines()) == 2
    expired = load_access(kubeconfig(tmp_path / "config", plugin(tmp_path, {"token": "t", "expirationTimestamp": "2020-01-01T00:00:00Z"})))
    expired.token(False), expired.token(False)
    assert len(calls.read_text().splitlines()) == 4


def test_a_login_program_that_fails_is_told_of(tmp_path: Path) -> None:
    access = load_access(kubeconfig(tmp_path / "config", plugin(tmp_path, {}, code=3)))
    with pytest.raises(ClusterError, match="which logs jane in, ended with code 3; log in anew"):
        access.token(False)
    missing = {"exec": {"command": "no-such-login", "installHint": "get it from example.org"}}
    with pytest.raises(ClusterError, match=r"the program 'no-such-login'.* is not installed; get it from example\.org"):
        load_access(kubeconfig(tmp_path / "config", missing)).token(False)


def test_verification_is_left_out_only_where_the_file_says_so(tmp_path: Path) -> None:
    access = load_access(kubeconfig(tmp_path / "config", cluster={"insecure-skip-tls-verify": True}))
    assert access.tls is not None
    assert access.tls.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (None, "there is no such kubeconfig"),
        ("a: [", "is not YAML"),
        ("just text", "is no kubeconfig"),
        ("current-context: x", "has no context 'x'; it has none"),
        ("kind: Config", "has no current context; name a kubeconfig with --kubeconfig or KUBECONFIG"),
    ],
)
def test_a_kubeconfig_that_is_none(tmp_path: Path, write: str | None, said: str) -> None:
    path = tmp_path / "config"
    if write is not None:
        path.write_text(write)
    with pytest.raises(ClusterError, match=said):
        load_access(path)


def test_what_is_missing_in_it_is_named(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config")
    with pytest.raises(ClusterError, match="has no context 'prod'; it has lab"):
        load_access(path, context="prod")
    with pytest.raises(ClusterError, match=r"the kubeconfig's certificates cannot be used \(.*nowhere"):
        load_access(kubeconfig(tmp_path / "config", cluster={"certificate-authority": "nowhere.crt"}))
    with pytest.raises(ClusterError, match=r"the auth-provider 'gcp', which Kubernetes 1\.26 removed"):
        load_access(kubeconfig(tmp_path / "config", {"auth-provider": {"name": "gcp"}}))


def test_no_kubeconfig_at_all() -> None:
    with pytest.raises(ClusterError, match="there is no kubeconfig"):
        load_access()


GRANT = 'x is forbidden: user "jane" is attempting to grant RBAC permissions not currently held:\n{APIGroups:["batch"]}'


@pytest.mark.parametrize(
    ("status", "message", "kind", "said"),
    [
        (403, 'jobs.batch is forbidden: User "jane" cannot patch', Forbidden, "jane has no right to; ask an administrator"),
        (403, 'pods "x" is forbidden: exceeded quota: gpus, requested: 8', Forbidden, r"cannot apply .*: exceeded quota: gpus"),
        (403, GRANT, Forbidden, "may only grant rights that jane has"),
        (302, "", ApiError, "that is no Kubernetes API server; check the kubeconfig"),
        (401, "Unauthorized", Unauthorized, "does not accept the credentials of jane; renew them"),
        (404, 'namespaces "ml" not found', NotFound, "create the namespace, or choose another with -n"),
        (404, "404 page not found", NotFound, "the cluster has no such API"),
        (409, "changed", Conflict, r"cannot apply jobs\.batch x in namespace ml: changed"),
        (410, "too old", Gone, "too old"),
        (422, "spec: wrong", Invalid, "spec: wrong"),
        (400, "strict decoding error", Invalid, "strict decoding error"),
    ],
)
def test_refusals_become_sentences(status: int, message: str, kind: type[ClusterError], said: str) -> None:
    err = api_error(status, {"message": message}, ASKED, "jane")
    assert type(err) is kind
    with pytest.raises(kind, match=said):
        raise err
    assert "\n" not in str(err)
    assert err.exit_code == 9


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_overloaded_server_is_a_passing_fault(status: int) -> None:
    assert api_error(status, {}, ASKED, "jane").exit_code == 75
