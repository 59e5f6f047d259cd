"""``python -m phala_secrets``: the command."""

import sys

from phala_secrets.cli import main

sys.exit(main())
