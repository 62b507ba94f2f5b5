"""What holds for every test: quiet libraries, no calls to a model hub, threads that spin only shortly while they wait."""

import os
import signal
import sys

import pytest

for name, value in {
    "GOMP_SPINCOUNT": "2000",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
}.items():
    os.environ.setdefault(name, value)

# Shells start background jobs with SIGINT ignored, nohup with SIGHUP: dailctl respects that, so tests that send them would wait
# for ever. Here the tests begin with what a terminal gives.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


_status = 0


def pytest_sessionfinish(exitstatus: int) -> None:
    """Remember how the tests ended."""
    global _status
    _status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Leave without the interpreter's own end: threads of torch's key-value stores may abort it there, after everything is told."""
    if "torch" in sys.modules and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status)
