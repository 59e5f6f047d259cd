#!/opt/phala-secrets/bin/python -IB
from phala_secrets.cli import command

command()
