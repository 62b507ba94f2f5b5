"""Prompts: what each of the three contexts is shown, as token ids."""

from dail_runtime.prompts.contexts import Prompt, Prompts, PromptTooLong
from dail_runtime.prompts.landmarks import landmarks
from dail_runtime.prompts.reference import references

__all__ = ["Prompt", "PromptTooLong", "Prompts", "landmarks", "references"]
