"""A Phala Cloud on loopback that behaves: real keys, real signatures, a guest that decrypts.

For tests, for `phala-secrets simulate`, and for trying things out with no account. It is a second
opinion on the rest of this package: its guest, its envelopes and its signatures are written from the
specifications alone.

::

    with Simulator() as simulator:
        cvm = simulator.cloud.add_cvm("my-app", environment={"OLD": "1"})
        ...  # PHALA_CLOUD_API_PREFIX=simulator.url, PHALA_CLOUD_API_KEY=simulator.cloud.api_key
        assert cvm.wait().environment == {"NEW": "2"}
"""

from .cloud import Cloud, RateLimit
from .cvm import Cvm, Operation
from .faults import Fault, Faults
from .kms import Kms
from .serve import serve
from .server import Simulator
from .wire import Answer, Request

__all__ = [
    "Answer",
    "Cloud",
    "Cvm",
    "Fault",
    "Faults",
    "Kms",
    "Operation",
    "RateLimit",
    "Request",
    "Simulator",
    "serve",
]
