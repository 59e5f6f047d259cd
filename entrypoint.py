#!/opt/phala-secrets/bin/python -IB
import sys

from phala_secrets.cli import main

sys.exit(main())
