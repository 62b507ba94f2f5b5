"""Sampling of responses: the policies, and the engines that run a model for them."""
