"""The replicated state machine: pure, no clock, no chance, no file. What it keeps goes through `backend.Backend`."""
