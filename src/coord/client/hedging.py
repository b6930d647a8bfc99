"""Asking twice what may be asked twice, so that the silence of one node costs little."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from coord.errors import ConnectionFailed, CoordError, DeadlineExceeded, Unavailable

Answer = TypeVar("Answer")
Ask = Callable[[], Awaitable[Answer]]


async def first_answer(first: Ask[Answer], second: Ask[Answer], patience_s: float) -> Answer:
    """Return the first answer; `second` is asked when `first` has had no answer for `patience_s` seconds.

    Raises the error that is the answer, or why `first` got none if neither got one.
    """
    answers: list[Answer] = []
    errors: list[CoordError] = []
    async with trio.open_nursery() as nursery:

        async def ask(one: Ask[Answer]) -> None:
            try:
                answers.append(await one())
            except (Unavailable, DeadlineExceeded, ConnectionFailed) as error:
                errors.append(error)
                return
            except CoordError as error:
                errors.insert(0, error)
            nursery.cancel_scope.cancel()

        nursery.start_soon(ask, first)
        await trio.sleep(patience_s)
        nursery.start_soon(ask, second)
    if answers:
        return answers[0]
    raise errors[0]
