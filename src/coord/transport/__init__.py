"""Links that carry whole messages: WebSockets over TCP, and in memory for tests.

Bytes only: nothing here decodes what a message holds.
"""
