"""What the guest received is what the workflow gave, and the outputs (``OUTPUTS``, JSON) say so."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

GIVEN = {
    "DATABASE_URL": "postgres://app:p4$$w0rd${X}@db/app",
    "GREETING": "hello from a workflow",
    "API_SECRET": "s3cr3t-value",
}

outputs = json.loads(os.environ["OUTPUTS"])
with urllib.request.urlopen(Path("simulator/guest").read_text()) as answer:
    guest = json.load(answer)
assert guest["environment"] == GIVEN, sorted(guest["environment"])
assert outputs["status"] == "running", outputs
assert outputs["cvm-id"] == guest["id"], outputs
assert sorted(json.loads(outputs["env-keys"])) == sorted(GIVEN), outputs
assert not [value for value in GIVEN.values() if value in json.dumps(outputs)]
