"""Simulators, faults and checkers: what proves coord, for the tests of those who use it too."""
