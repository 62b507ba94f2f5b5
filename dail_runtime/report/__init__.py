"""What a run showed: report.json for programs, report.html for people."""

from dail_runtime.report.collect import collect, curves
from dail_runtime.report.html import render
from dail_runtime.report.model import Report

__all__ = ["Report", "collect", "curves", "render"]
