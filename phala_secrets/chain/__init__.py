"""An EVM chain, as data in and data out: contract calls, approvals, transactions. Sends nothing."""
