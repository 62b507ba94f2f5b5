"""The stages of a run, and the process that runs one of them."""
