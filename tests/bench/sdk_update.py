"""The official SDK's way to update an environment, corrected where the documented one does not run.

It encrypts to the key as it comes: like the official CLI, it proves nothing.
"""

import sys
from pathlib import Path

from dotenv import dotenv_values
from dstack_sdk import EnvVar, encrypt_env_vars_sync
from phala_cloud import create_client

cvm, env_file = sys.argv[1:]
client = create_client()
info = client.get_cvm_info({"id": cvm})
key = client.get_app_env_encrypt_pub_key({"kms": "phala", "app_id": info.app_id})
values = dotenv_values(Path(env_file), interpolate=False)
variables = [EnvVar(key=name, value=value or "") for name, value in values.items()]
encrypted = encrypt_env_vars_sync(variables, key.public_key)
answer = client.update_cvm_envs({"id": info.id, "encrypted_env": encrypted, "env_keys": list(values)})
print(answer)
