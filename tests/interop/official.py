"""The official SDK of PyPI, asked as data, like official.cjs; run by the Python of its own environment."""

import json
import sys
import warnings

import dstack_sdk


def encrypt(variables, key):
    return dstack_sdk.encrypt_env_vars_sync([dstack_sdk.EnvVar(**variable) for variable in variables], key)


def verify(key, signature, app_id, timestamp):
    return dstack_sdk.verify_env_encrypt_public_key(
        bytes.fromhex(key), bytes.fromhex(signature), app_id, timestamp
    )


def verify_legacy(key, signature, app_id):
    return dstack_sdk.verify_env_encrypt_public_key_legacy(
        bytes.fromhex(key), bytes.fromhex(signature), app_id
    )


def compose_hash(app_compose, normalize):
    return dstack_sdk.get_compose_hash(app_compose, normalize)


FUNCTIONS = {"encrypt": encrypt, "verify": verify, "verifyLegacy": verify_legacy, "hash": compose_hash}

warnings.simplefilter("ignore", DeprecationWarning)
json.dump([FUNCTIONS[name](*arguments) for name, *arguments in json.load(sys.stdin)], sys.stdout)
