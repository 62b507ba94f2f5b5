"""Prints what dail depends on: `python3 wanted.py PYPROJECT [EXTRA...]`.

A layer made from that stays when something else in pyproject.toml changes.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
for wanted in (project["dependencies"], *(project["optional-dependencies"][extra] for extra in sys.argv[2:])):
    print(*wanted, sep="\n")
