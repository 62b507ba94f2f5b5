"""A tiny model, a tiny subject and its expert solutions: the method's proof on a CPU."""
