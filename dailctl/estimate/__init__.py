"""What a run will take (tokens, time, GPU-hours, storage, money), from rates that were measured and say where."""
