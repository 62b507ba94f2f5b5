"""`python -m dailctl` is `dailctl`."""

import sys

from dailctl.cli.main import main

sys.exit(main())
