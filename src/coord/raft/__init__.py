"""Consensus, pure: messages and ticks go in, effects come out as data."""
