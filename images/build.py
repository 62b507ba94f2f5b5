"""Builds the images: `python -m images.build [NAME...]`, one line of JSON an image (reference, archive, bytes).

With buildah, podman or docker, whichever is there. Each image is written as a tar that `ctr images import`, `podman load`,
`docker load` and `kind load image-archive` read, into the user's cache, under the digest of everything it is made from: what did not
change is not built again.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_cache_path

import dail_runtime
from images import base

ROOT = Path(__file__).parent.parent
NAMES = ("control", "runtime-cpu", "runtime")
DEFAULT = ("control", "runtime-cpu")
ENGINES = ("buildah", "podman", "docker")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "requirements", "dailctl", "dail_runtime", "charts", "images")
BUILDERS = ("__init__.py", "base.py", "build.py")
"""What builds images, and is in none."""
# Where the host's package managers look, and through which proxy: used while building, never kept.
HOST_SETTINGS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "UV_", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Image:
    """A built image."""

    name: str
    """control, runtime-cpu or runtime."""
    reference: str
    """Its name in a container store: `localhost/dail/NAME:DIGEST`, the digest that of its inputs."""
    archive: Path
    """Tar of the image."""

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps({**asdict(self), "archive": str(self.archive), "bytes": self.archive.stat().st_size})


def build(
    names: tuple[str, ...] = DEFAULT, engine: str | None = None, base_image: str | None = None, torch: str | None = None
) -> list[Image]:
    """The images, built where the cache does not have them.

    Args:
        engine: One of ENGINES; the first that is installed where None.
        base_image: An image with Python 3.11 or 3.12; where None, Python's official one, or Debian where that cannot be pulled.
        torch: PyTorch build of the CPU image: "cpu", or "" for the ordinary one; where None, "cpu" if its package index is reachable.
    Raises:
        SystemExit: nothing here can build images.
        subprocess.CalledProcessError: a build failed; its output has gone to standard error.
    """
    cache = user_cache_path("dail") / "images"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        chosen = engine or next((name for name in ENGINES if _works(name)), None)
        if chosen is None:
            raise SystemExit(missing())
        reference = base_image or _base(chosen, cache)
        return [_build(name, chosen, reference, _torch(torch) if name == "runtime-cpu" else "", cache) for name in names]


def missing() -> str:
    """Why images cannot be built here, in a sentence; empty where they can."""
    return "" if any(map(_works, ENGINES)) else "no program here builds images: install buildah or podman, or start docker"


def _build(name: str, engine: str, base_image: str, torch: str, cache: Path) -> Image:
    with tempfile.TemporaryDirectory() as folder:
        # A copy, so that the image is made from exactly what its digest says, whatever is edited meanwhile.
        sources, settings = Path(folder, "sources"), Path(folder, "settings")
        _copy_inputs(name, sources)
        digest = _digest(sources, base_image, torch)
        image = Image(name, f"localhost/dail/{name}:{digest}", cache / f"{name}-{digest}.tar")
        if image.archive.exists():
            image.archive.touch()
            return image
        print(f"building {image.reference}", file=sys.stderr, flush=True)
        arguments = {"BASE": base_image, "VERSION": dail_runtime.__version__, "REVISION": _revision()}
        if name == "runtime-cpu":
            arguments["TORCH_BACKEND"] = torch
        command = [engine, "build", f"--tag={image.reference}", f"--file={sources / 'images' / name / 'Containerfile'}"]
        command += [f"--build-arg={key}={value}" for key, value in arguments.items()]
        command += [f"--secret=id={path.name},src={path}" for path in _host_settings(settings)]
        # What docker attests beside an image makes of it a list, which containerd's import (kind, ctr) does not take.
        command += ["--provenance=false"] if engine == "docker" else ["--isolation=chroot", "--layers", "--format=oci"]
        subprocess.run([*command, str(sources)], check=True, stdout=sys.stderr)
    part = image.archive.with_suffix(".part")
    part.unlink(missing_ok=True)
    subprocess.run(_export(engine, image.reference, part), check=True, stdout=sys.stderr)
    part.rename(image.archive)
    _forget(image, engine, cache)
    return image


def _export(engine: str, reference: str, archive: Path) -> list[str]:
    if engine == "docker":
        return ["docker", "save", "--output", str(archive), reference]
    # This form holds the layers as they are: on one machine, compressing and expanding them takes longer than the bytes are worth.
    return [engine, "push", "--quiet", reference, f"docker-archive:{archive}:{reference}"]


def _forget(image: Image, engine: str, cache: Path) -> None:
    """Removes earlier builds of the same image, the two latest excepted."""
    digests = sorted(cache.glob(f"{image.name}-[0-9a-f]*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in digests[3:]:
        old.unlink(missing_ok=True)
        tag = old.stem.rpartition("-")[2]
        subprocess.run([engine, "rmi", f"localhost/dail/{image.name}:{tag}"], capture_output=True)


def _copy_inputs(name: str, target: Path) -> None:
    """Copies what the image `name` is made from, and nothing of the other images."""
    others = {ROOT / "images" / other for other in (*NAMES, *BUILDERS) if other != name}

    def unwanted(folder: str, entries: list[str]) -> set[str]:
        return {entry for entry in entries if entry == "__pycache__" or Path(folder, entry) in others}

    target.mkdir()
    for source in filter(Path.exists, (ROOT / name for name in SOURCES)):
        if source.is_dir():
            shutil.copytree(source, target / source.name, ignore=unwanted)
        else:
            shutil.copy2(source, target)


def _digest(sources: Path, base_image: str, torch: str) -> str:
    state = hashlib.sha256(f"{base_image}\0{torch}\0".encode())
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        state.update(f"{path.relative_to(sources)}\0{path.stat().st_mode & 0o111}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()[:12]


def _base(engine: str, cache: Path) -> str:
    pulled = subprocess.run([engine, "pull", base.REGISTRY], capture_output=True, stdin=subprocess.DEVNULL)
    return base.REGISTRY if pulled.returncode == 0 else base.debian(engine, cache)


@functools.cache
def _torch(wanted: str | None) -> str:
    if wanted is not None:
        return wanted
    command = ["uv", "pip", "compile", "--quiet", "--no-deps", "--torch-backend=cpu", "--constraint=requirements/constraints.txt", "-"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    found = subprocess.run(command, input=b"torch", cwd=ROOT, env=environment, capture_output=True)
    return "cpu" if found.returncode == 0 else ""


def _host_settings(folder: Path) -> list[Path]:
    """Files in `folder` that a build mounts: `host`, a shell script of settings, and `certificates`, whom the host trusts."""
    folder.mkdir()
    settings = {key: value for key, value in os.environ.items() if key.upper().startswith(HOST_SETTINGS)}
    certificates = folder / "certificates"
    trusted = settings.get("SSL_CERT_FILE") or settings.get("PIP_CERT")
    if trusted and Path(trusted).is_file():
        shutil.copyfile(trusted, certificates)
        settings |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT"), "/run/secrets/certificates")
    else:
        certificates.touch()
    host = folder / "host"
    host.write_text("".join(f"export {key}={shlex.quote(value)}\n" for key, value in sorted(settings.items())))
    return [host, certificates]


def _revision() -> str:
    described = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=ROOT, capture_output=True, text=True)
    return described.stdout.strip() or "unknown"


def _works(engine: str) -> bool:
    # The client of docker is often there without its daemon.
    return shutil.which(engine) is not None and subprocess.run([engine, "info"], capture_output=True).returncode == 0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m images.build", description="Build dail's container images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; default: {' '.join(DEFAULT)}")
    parser.add_argument("--engine", choices=ENGINES, help="default: the first of them that works here")
    parser.add_argument(
        "--base", metavar="IMAGE", help=f"an image with Python 3.11 or 3.12; default: {base.REGISTRY}, else Debian made here"
    )
    parser.add_argument(
        "--torch", choices=("cpu", "ordinary"), help="PyTorch build of runtime-cpu; default: cpu where its index is reachable"
    )
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"there is no image {unknown[0]}; there are {', '.join(NAMES)}")
    torch = {"cpu": "cpu", "ordinary": "", None: None}[arguments.torch]
    try:
        for image in build(tuple(arguments.names) or DEFAULT, arguments.engine, arguments.base, torch):
            print(image.line(), flush=True)
    except subprocess.CalledProcessError as err:
        raise SystemExit(f"{shlex.join(map(str, err.cmd[:2]))} failed with {err.returncode}; what it said is above") from None


if __name__ == "__main__":
    main()
