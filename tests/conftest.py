"""What holds for every test, whatever shell it is started from: quiet libraries, no calls to a model hub, nobody's own settings."""

import os
import signal
import sys

import pytest
from hypothesis import settings

OWN = ("DAIL_TEST_KUBECONFIG", "DAIL_FAULT_MOMENTS")
"""Variables that are for the tests."""
STEERING = (
    *("AWS_", "DAIL_", "KUBECONFIG", "KUBERNETES_", "POD_NAME", "PET_", "TORCHELASTIC_"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"),
)
"""How those begin that steer what is tested: a test that wants one sets it."""

for name in [name for name in os.environ if name.startswith(STEERING) and name not in OWN]:
    del os.environ[name]
# Every server of the tests is on this machine, or on the node that tests/lab makes there.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost,::1,10.88.1.2"]))
os.umask(0o022)
# Examples that do not change from run to run, and no limit of time for each.
settings.load_profile("ci")

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
