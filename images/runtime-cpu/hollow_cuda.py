"""Lets PyTorch's ordinary build run on a CPU without CUDA's libraries: 2.5 GB that are linked and never called.

`python hollow_cuda.py SITE_PACKAGES` needs gcc and readelf, so it runs in a build stage. For every CUDA library that torch is linked
to and that is not installed it makes a stand-in with the same name and the same symbols (functions whose address torch takes while it
loads must exist), each of which stops the process with SIGILL. Without a GPU driver torch calls two of CUDA's libraries, the runtime and
CUPTI; those stay the real ones. Nothing is done where torch is a CPU build.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

REAL = ("libcudart.so.", "libcupti.so.")
CUDA = re.compile(r"lib(cu(blas|blasLt|dnn|fft|file|rand|solver|sparse|sparseLt)|nccl|nvrtc|nvshmem_host|nvJitLink)\.so\.\d+")
# Most of CUDA's symbols carry their library's name as their version; these carry none, or another.
BY_VERSION = {"NVSHMEM": "libnvshmem_host"}
BY_PREFIX = {"nccl": "libnccl", "cusparseLt": "libcusparseLt", "cuFile": "libcufile"}


def main(site: Path) -> None:
    """Make the stand-ins beside torch's own libraries."""
    libraries = site / "torch" / "lib"
    linked, used = set[str](), defaultdict[tuple[str, str], set[str]](set)
    for binary in sorted(libraries.glob("lib*.so*")):
        linked |= set(re.findall(r"\(NEEDED\).*\[(.+)\]", _readelf("--dynamic", binary)))
        for name, version in re.findall(r" UND (\w+)(?:@(\S+))?", _readelf("--dyn-syms", binary)):
            used[_library(name, version), version].add(name)
    for library in sorted(name for name in linked if CUDA.fullmatch(name) and not any(site.glob(f"nvidia/*/lib/{name}"))):
        symbols = {version: names for (owner, version), names in used.items() if owner and library.startswith(f"{owner}.so.")}
        _stand_in(libraries / library, symbols)
        print(f"{library}: hollow, {sum(map(len, symbols.values()))} symbols")


def _library(symbol: str, version: str) -> str:
    """Name without `.so` of the library that a symbol comes from; empty for what is not CUDA's."""
    if version:
        return BY_VERSION.get(version, version.partition(".so.")[0])
    # The longest prefix: cusparseLt is not cusparse.
    return next((BY_PREFIX[prefix] for prefix in sorted(BY_PREFIX, key=len, reverse=True) if symbol.startswith(prefix)), "")


def _stand_in(path: Path, symbols: dict[str, set[str]]) -> None:
    names = sorted(set[str]().union(*symbols.values()))
    code = "".join(f".globl {name}\n.type {name}, @function\n{name}:\n" for name in names)
    versions = "".join(
        f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names))} }};\n" for version, names in symbols.items() if version
    )
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder, "symbols.s"), Path(folder, "versions")
        source.write_text(f'.text\n{code}ud2\n.section .note.GNU-stack,"",@progbits\n')
        script.write_text(versions)
        options = [f"-Wl,--version-script={script}"] if versions else []
        subprocess.run(["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{path.name}", *options, "-o", path, source], check=True)


def _readelf(what: str, binary: Path) -> str:
    return subprocess.run(["readelf", "--wide", what, binary], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
