"""The actor tree of one node: consensus, log writer, applier, leases, watches, compaction."""
