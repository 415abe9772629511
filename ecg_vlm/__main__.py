"""`python -m ecg_vlm`: the command line."""

import sys

from ecg_vlm.cli import main

sys.exit(main())
