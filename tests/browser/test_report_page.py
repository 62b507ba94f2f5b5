"""The report in a real browser: headless Chromium shows it without a complaint on its console."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dail_runtime.evaluate.records import Interval
from dail_runtime.report import render
from tests.support.reports import HOSTILE, curve_rows, figures, report
from tests.support.require import require

pytestmark = pytest.mark.browser

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def browse(page: Path, *ask: str) -> tuple[str, list[str]]:
    """What Chromium prints for the page, and what its console said."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    require(chromium is not None, "Chromium is not installed (Debian: apt-get install chromium)")
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    command = [str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1280,2400", *quiet]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run([*command, profile, *ask, page.as_uri()], capture_output=True, text=True, timeout=900, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    models = {"base": figures(0.1), "tuned": figures(0.2, over_base=Interval(value=0.1, low=0.02, high=0.18))}
    path = tmp_path / "report.html"
    path.write_text(render(report(models, text=HOSTILE), {"tuned": curve_rows()}), encoding="utf-8")
    return path


def test_the_browser_shows_verdict_charts_and_traces_without_a_console_message(page: Path) -> None:
    dom, console = browse(page, "--dump-dom")
    assert console == []
    assert "A gain: tuned solves 20.0%" in dom
    assert dom.count("<svg") == 5  # gain, pass@k, budgets, loss, KL to the teacher
    assert "<script>" not in dom


def test_a_screenshot_can_be_taken(page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "report.png"
    _, console = browse(page, f"--screenshot={shot}")
    assert console == []
    content = shot.read_bytes()
    assert content.startswith(PNG_HEAD)
    assert len(content) > 20_000  # a blank page of this size has a tenth of that


def test_what_the_policy_of_the_page_forbids_would_show_on_the_console(page: Path) -> None:
    page.write_text(page.read_text(encoding="utf-8").replace("<h1>", '<script>document.title = "ran"</script><h1>'), encoding="utf-8")
    dom, console = browse(page, "--dump-dom")
    assert "<title>ran" not in dom
    assert any("Content Security Policy" in line for line in console)
