"""`python -m lwcore`: the command line."""

import os
import sys

# Before numpy is imported: the many small solves of compensation run faster on one thread each.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from lwcore.cli import main

sys.exit(main())
