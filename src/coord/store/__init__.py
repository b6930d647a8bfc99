"""The store: records and rows of the state machine on disk, in LMDB, behind an overlay of what is not yet
there.
"""
