"""Sessions, locks and what else is made of keys, leases and watches: recipes on top of a client."""
