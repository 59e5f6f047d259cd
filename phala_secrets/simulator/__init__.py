"""A Phala Cloud on loopback that behaves: real keys, real signatures, a guest that decrypts.

It serves tests, `phala-secrets simulate`, and trials without an account. It is a second opinion on the
rest of this package: its guest, its envelopes and its signatures follow the specifications alone.

::

    with Simulator() as simulator:
        cvm = simulator.cloud.add_cvm("my-app", environment={"OLD": "1"})
        ...  # PHALA_CLOUD_API_PREFIX=simulator.url, PHALA_CLOUD_API_KEY=simulator.cloud.api_key
        assert cvm.wait().environment == {"NEW": "2"}
"""
