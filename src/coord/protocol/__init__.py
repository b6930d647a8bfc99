"""The client protocol and the entry format: pure, bytes in, tuples out. `coord.cddl` beside this file is the schema."""
