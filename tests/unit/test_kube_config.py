"""Which cluster, as whom: kubeconfigs, merged ones, login programs, and what is wrong with them in a sentence."""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dail_runtime.errors import ClusterError, UsageError
from dailctl.kube import load_access
from dailctl.kube.errors import ApiError, Conflict, Forbidden, Gone, Invalid, NotFound, Unauthorized, api_error
from tests.lab.pki import Authority

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


def test_a_login_program_may_give_a_certificate_instead_of_a_token(tmp_path: Path) -> None:
    authority = Authority.new("localhost")
    pair = authority.user("jane")
    given = {"clientCertificateData": pair.certificate.decode(), "clientKeyData": pair.key.decode()}
    access = load_access(kubeconfig(tmp_path / "config", plugin(tmp_path, given), cluster={"insecure-skip-tls-verify": True}))
    assert [access.token(False), access.token(False)] == [None, None]
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    assert access.tls is not None
    assert shown_to(authority, access.tls, tmp_path) == ssl.PEM_cert_to_DER_cert(pair.certificate.decode())


def shown_to(authority: Authority, client: ssl.SSLContext, folder: Path) -> bytes | None:
    """The certificate that a client shows to a server of the authority; both in memory."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.pair.certificate.decode())
    server.load_cert_chain(*authority.server("localhost", ["localhost"]).write(folder, "server"))
    server.verify_mode = ssl.CERT_REQUIRED
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    one, other = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for end in (one, other):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return other.getpeercert(binary_form=True)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"token": "t", "expirationTimestamp": "soon"}, "gave what cannot be used .*soon.*; run it by hand to see it"),
        ({"clientCertificateData": "x", "clientKeyData": "y"}, "gave what cannot be used .*; run it by hand to see it"),
        ({"clientCertificateData": "x"}, "gave no token and no certificate; log in anew"),
    ],
)
def test_what_a_login_program_gives_may_be_of_no_use(tmp_path: Path, status: dict[str, Any], said: str) -> None:
    access = load_access(kubeconfig(tmp_path / "config", plugin(tmp_path, status)))
    with pytest.raises(ClusterError, match=said):
        access.token(False)


def test_an_end_without_a_zone_is_in_utc(tmp_path: Path) -> None:
    user = plugin(tmp_path, {"token": "t", "expirationTimestamp": "2099-01-01T00:00:00"})
    user["exec"]["env"] = [{"name": "EMPTY"}]
    access = load_access(kubeconfig(tmp_path / "config", user))
    assert [access.token(False), access.token(False)] == ["t", "t"]
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


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
        ("contexts: [lab]", "contexts is no list of entries with a name and a context; correct it"),
        ("clusters: {c: {server: x}}", "clusters is no list of entries with a name and a cluster; correct it"),
        ("users: [{name: jane, user: token}]", "users is no list of entries with a name and a user; correct it"),
        ("users: [{name: jane, user: {exec: login}}]", "users is no list of entries with a name and a user; correct it"),
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


@pytest.mark.parametrize("server", ["", "127.0.0.1:6443", "::::", "ftp://x", "https:///"])
def test_a_server_that_is_no_address(tmp_path: Path, server: str) -> None:
    with pytest.raises(ClusterError, match=r"the cluster of context lab has (the|no) server.*; write it as https://host:port"):
        load_access(kubeconfig(tmp_path / "config", cluster={"server": server}))


@pytest.mark.parametrize("name", ["..", "a/b", "Research", "x" * 64])
def test_a_namespace_that_cannot_be_one_leads_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a namespace"):
        load_access(kubeconfig(tmp_path / "config"), namespace=name)


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
