"""``python -m tenon``: the command line."""

import sys

from tenon.cli import main

sys.exit(main())
