"""`python -m remedy`."""

import sys

from remedy.cli import main

sys.exit(main())
