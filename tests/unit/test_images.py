"""What the images are made from: the digest that names them, the libraries they want, and CUDA's stand-ins."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from images import base, build
from tests.support.require import require

REPOSITORY = build.ROOT


def digest(root: Path, name: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(build, "ROOT", root)
    build._copy_inputs(name, scratch)
    return build._digest(scratch, "base", "")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of what the images are made from."""
    root = tmp_path / "root"
    root.mkdir()
    for name in build.SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, root)
    return root


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("dail_runtime/errors.py", True),
        ("requirements/constraints.txt", True),
        ("images/control/Containerfile", True),
        ("images/runtime-cpu/Containerfile", False),
        ("dailctl/__pycache__/x.pyc", False),
    ],
)
def test_an_images_digest_follows_what_it_is_made_from(
    edited: str, changes: bool, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(sources, "control", tmp_path / "before", monkeypatch)
    path = sources / edited
    path.parent.mkdir(exist_ok=True)
    path.write_text(path.read_text() + "\n" if path.exists() else "x")
    assert (digest(sources, "control", tmp_path / "after", monkeypatch) != before) == changes


@pytest.mark.parametrize("name", build.NAMES)
def test_a_containerfile_by_hand_takes_the_base_that_the_builder_takes(name: str) -> None:
    lines = (REPOSITORY / "images" / name / "Containerfile").read_text().splitlines()
    assert f"ARG BASE={base.REGISTRY}" in lines


def test_host_settings_are_a_script_that_a_shell_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = tmp_path / "ca.crt"
    certificates.write_text("trusted")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates))
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:p'ss word@mirror.example/simple")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody's business")
    host, copied = build._host_settings(tmp_path / "settings")
    assert copied.read_text() == "trusted"
    assert "AWS" not in host.read_text()
    command = ["sh", "-c", '. "$0"; echo "$PIP_INDEX_URL $SSL_CERT_FILE"', str(host)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout == "https://user:p'ss word@mirror.example/simple /run/secrets/certificates\n"


def test_wanted_libraries_are_those_of_the_extras() -> None:
    def wanted(*extras: str) -> list[str]:
        command = [sys.executable, REPOSITORY / "images" / "wanted.py", REPOSITORY / "pyproject.toml", *extras]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    light, heavy = wanted(), wanted("runtime")
    assert any(one.startswith("boto3") for one in light)
    assert not any(one.startswith("torch") for one in light)
    assert any(one.startswith("torch") for one in heavy)
    assert heavy[: len(light)] == light


def hollow() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hollow_cuda", REPOSITORY / "images" / "runtime-cpu" / "hollow_cuda.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_library_linked_to_cuda_loads_with_its_stand_in(tmp_path: Path) -> None:
    require(shutil.which("gcc") and shutil.which("readelf"), "gcc and readelf are not installed")
    libraries, real = tmp_path / "torch" / "lib", tmp_path / "real"
    libraries.mkdir(parents=True)
    real.mkdir()

    def compile_library(target: Path, code: str, *options: object) -> None:
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            "-x",
            "c",
            "-",
            "-x",
            "none",
            "-o",
            target,
            f"-Wl,-soname,{target.name}",
            "-Wl,-z,now",
            *options,
        ]
        subprocess.run([str(word) for word in command], input=code, text=True, check=True)

    (tmp_path / "versions").write_text("libcublas.so.13 { global: cublasCreate; };\n")
    compile_library(real / "libcublas.so.13", "int cublasCreate(void) { return 7; }", f"-Wl,--version-script={tmp_path}/versions")
    compile_library(real / "libnccl.so.2", "int ncclSend(void) { return 7; }")
    code = "int cublasCreate(void); int ncclSend(void); void *taken = cublasCreate;"
    code += "int call(void) { return ncclSend(); } int five(void) { return 5; }"
    compile_library(libraries / "libtorch_cuda.so", code, real / "libcublas.so.13", real / "libnccl.so.2", "-Wl,-rpath,$ORIGIN")

    def load(then: str = "") -> subprocess.CompletedProcess[str]:
        # In a process of its own: this one may have loaded the real libraries of these names with torch.
        program = f"import ctypes; library = ctypes.CDLL('{libraries}/libtorch_cuda.so'); {then}"
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "libcublas.so.13: cannot open shared object file" in load().stderr
    hollow().main(tmp_path)
    assert load("print(library.five())").stdout == "5\n"
    assert load("library.call()").returncode == -4, "a call into a stand-in ends the process with SIGILL"


def test_torch_without_cuda_gets_no_stand_ins(tmp_path: Path) -> None:
    require(shutil.which("gcc") and shutil.which("readelf"), "gcc and readelf are not installed")
    libraries = tmp_path / "torch" / "lib"
    libraries.mkdir(parents=True)
    subprocess.run(["gcc", "-shared", "-x", "c", "-", "-o", libraries / "libtorch_cpu.so"], input="int x;", text=True, check=True)
    hollow().main(tmp_path)
    assert [one.name for one in libraries.iterdir()] == ["libtorch_cpu.so"]
