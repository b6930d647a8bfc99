"""What clients reach: connections that carry coord.v1, and plain HTTP on the same port."""
