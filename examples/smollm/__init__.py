"""A real 135 M parameter model on short word problems: the smoke test of every stage."""
