"""A CI's machine and its secrets, for the examples."""

from tests.support.ci import machine as machine
from tests.support.ci import secrets as secrets
