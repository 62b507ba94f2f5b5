"""The in-cluster sequencer of one run: `python -m dailctl.conductor --run R`."""
