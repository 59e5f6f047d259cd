"""``python -m phala_secrets``: the command."""

from phala_secrets.cli import command

command()
