#!/opt/phala-secrets/bin/python -IB
from phala_secrets.__main__ import command

command()
