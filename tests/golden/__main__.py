"""`python -m tests.golden` writes the goldens."""

from tests.golden import update

update()
