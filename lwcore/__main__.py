"""`python -m lwcore`: the command line."""

import sys

from lwcore.cli import main

sys.exit(main())
