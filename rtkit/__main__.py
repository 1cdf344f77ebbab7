"""`python -m rtkit`: the command line."""

import sys

from rtkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
