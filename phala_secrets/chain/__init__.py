"""An EVM chain, as data in and data out: contract calls, approvals, transactions. Sends nothing.

===============  ================================================================================
``abi``          encoding and decoding, strict to the last byte
``rpc``          what to ask, and how to read the answer: ``Rpc[T]``
``wellknown``    the chains that Phala documents: names, KMS contracts, explorers
``prepared``     what an approval made elsewhere takes: calldata, a file for a Safe, a digest
``flow``         a sequence of requests as a generator, for a sync or an async client to drive
``sender``       the owner's key, and the only import of ``eth-account``
``transaction``  one transaction: priced, capped, sent once, confirmed
``register``     approving a compose hash as the owner
===============  ================================================================================
"""
