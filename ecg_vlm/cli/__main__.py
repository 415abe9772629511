"""`python -m ecg_vlm.cli`, as `accelerate launch -m ecg_vlm.cli finetune ...` starts it."""

import sys

from ecg_vlm.cli import main

sys.exit(main())
