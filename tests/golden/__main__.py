"""`python -m tests.golden` writes the goldens."""

from tests.golden import tables, update

update()
tables.update()
