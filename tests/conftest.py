"""What all tests share: the fixtures that users of coord have, and pytest's own for tests of plugins."""

pytest_plugins = ("coord.testing.pytest_plugin", "pytester")
