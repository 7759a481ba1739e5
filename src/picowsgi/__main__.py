"""`python -m picowsgi`: the command line, and nothing else."""

import sys

from picowsgi.cli.main import main

sys.exit(main())
