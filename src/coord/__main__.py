"""`python -m coord`: the command line."""

import sys

from coord.cli.main import main

sys.exit(main())
