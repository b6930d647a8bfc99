"""The one pure check of a write, run at the edge and again at apply on the same bytes (S15).

It looks at the write alone: types, bounds and rules that hold whatever the state is. Both runs see the same bytes and
the same limits (the proposer's, from the entry's header), so that all members judge alike.
"""

from __future__ import annotations

from typing import Any, Final

from coord import errors
from coord.errors import ApiError, InvalidArgument, Unimplemented
from coord.limits import LEASE_TTL_S_MAX, TXN_DEPTH_MAX
from coord.protocol.intervals import check_intervals
from coord.protocol.ops import AlarmAction, Op
from coord.protocol.ranges import RANGE_FIELDS, check_sort
from coord.protocol.shapes import BOOL, BYTES, INT, UINT, Field, check_fields, name_of
from coord.types import LEASE_ID_MAX, AlarmType, CompareTarget

_PUT: Final = (
    Field("key", BYTES),
    Field("value", BYTES),
    Field("lease", INT),
    Field("prev_kv", BOOL),
    Field("ignore_value", BOOL),
    Field("ignore_lease", BOOL),
)
_DELETE: Final = (Field("key", BYTES), Field("range_end", BYTES), Field("prev_kv", BOOL))
_COMPACT: Final = (Field("revision", INT), Field("physical", BOOL))
_GRANT: Final = (Field("ttl", INT), Field("id", INT))
_REVOKE: Final = (Field("id", INT),)
_ALARM: Final = (Field("action", UINT), Field("member", UINT), Field("alarm", UINT))
_GUARD: Final = (Field("key", BYTES), Field("create_revision", UINT))

_CODE_TXN: Final = int(Op.TXN)
_CODE_REGISTER: Final = int(Op.REGISTER)
_TARGET_VALUE: Final = int(CompareTarget.VALUE)
_TARGET_MAX: Final = max(map(int, CompareTarget))


def check_write(write: list[Any], max_txn_ops: int) -> ApiError | None:
    """Return why this write is refused whatever the state is, or None.

    `write` is one of a body that `check_body` let pass. A transaction may hold `max_txn_ops` compares, and as
    many operations in each branch, its nested ones included in the way etcd counts them.
    """
    _, op, guard, arguments = write
    try:
        _judge(op, guard, arguments, max_txn_ops)
    except ApiError as error:
        return error
    return None


def _judge(op: Any, guard: Any, arguments: Any, max_txn_ops: int) -> None:
    if type(op) is not int:
        raise InvalidArgument(f"coord: op must be an integer, not {name_of(op)}")
    check = _CHECKS.get(op)
    if check is None and op != _CODE_TXN:
        raise Unimplemented(f"coord: this release knows no write with op {op}")
    if guard is not None:
        check_fields("guard", guard, _GUARD, required=2)
        if not guard[0]:
            raise errors.empty_key()
        if guard[1] == 0:
            raise InvalidArgument("coord: the create_revision of a guard must be above 0")
        if op == _CODE_REGISTER:
            raise InvalidArgument("coord: register takes no guard")
    if check is None:
        check_txn(arguments, max_txn_ops)
    else:
        check(arguments)


def _check_put(arguments: Any) -> None:
    if type(arguments) is list and len(arguments) == 2:
        # Most have nothing else; the rest of this finds no fault with these, at four times the cost.
        key, value = arguments
        if type(key) is bytes and type(value) is bytes and key:
            return
    check_fields("put", arguments, _PUT, required=2)
    if not arguments[0]:
        raise errors.empty_key()
    count = len(arguments)
    lease = arguments[2] if count > 2 else 0
    if count > 4 and arguments[4] and arguments[1]:
        raise errors.value_provided()
    if count > 5 and arguments[5] and lease:
        raise errors.lease_provided()
    if not 0 <= lease <= LEASE_ID_MAX:
        raise errors.lease_not_found()


def _check_delete(arguments: Any) -> None:
    check_fields("delete_range", arguments, _DELETE, required=1)
    if not arguments[0]:
        raise errors.empty_key()


def _check_range(arguments: Any) -> None:
    check_fields("range", arguments, RANGE_FIELDS, required=1)
    if not arguments[0]:
        raise errors.empty_key()
    check_sort(arguments)


def check_txn(arguments: Any, max_txn_ops: int) -> None:
    """Check a transaction, nested ones included; also used for one that only reads.

    Raises `ApiError`.
    """
    _check_txn_level(arguments, max_txn_ops, TXN_DEPTH_MAX)
    for branch in arguments[1:]:
        # One operation alone changes nothing twice, unless it is a transaction.
        if len(branch) > 1 or (branch and branch[0][0] == _CODE_TXN):
            check_intervals(branch)


def _check_txn_level(arguments: Any, ops_left: int, levels_left: int) -> None:
    if type(arguments) is not list or len(arguments) < 3:
        raise InvalidArgument("coord: a txn must be an array [compares, success, failure]")
    if len(arguments) > 3:
        raise Unimplemented("coord: this release knows no item 4 of txn")
    for part in arguments:
        if type(part) is not list:
            raise InvalidArgument("coord: compares, success and failure of a txn must be arrays")
    if levels_left == 0:
        raise InvalidArgument(f"coord: transactions nest deeper than {TXN_DEPTH_MAX} levels")
    # As etcd counts: the longest of the three lists is what this level costs, nested ones get the remainder.
    cost = max(map(len, arguments))
    if cost > ops_left:
        raise errors.too_many_ops()
    for compare in arguments[0]:
        _check_compare(compare)
    for branch in arguments[1:]:
        for operation in branch:
            _check_operation(operation, ops_left - cost, levels_left - 1)


def _check_operation(operation: Any, ops_left: int, levels_left: int) -> None:
    if type(operation) is not list or not operation:
        raise errors.key_not_found()  # etcd's answer to an operation that is none
    op = operation[0]
    if type(op) is not int:
        raise InvalidArgument(f"coord: the op of an operation must be an integer, not {name_of(op)}")
    if len(operation) < 2:
        raise InvalidArgument("coord: an operation must be an array [op, arguments]")
    if len(operation) > 2:
        raise Unimplemented("coord: this release knows no item 3 of an operation")
    if op == _CODE_TXN:
        _check_txn_level(operation[1], ops_left, levels_left)
        return
    check = _OPERATION_CHECKS.get(op)
    if check is None:
        raise Unimplemented(f"coord: this release knows no operation {op} in a txn")
    check(operation[1])


_COMPARE: Final = (Field("target", UINT), Field("result", UINT), Field("key", BYTES), Field("operand", INT))
_COMPARE_END: Final = (*_COMPARE, Field("range_end", BYTES))
_COMPARE_VALUE: Final = (*_COMPARE[:3], Field("operand", BYTES), Field("range_end", BYTES))


def _check_compare(compare: Any) -> None:
    is_value = type(compare) is list and bool(compare) and compare[0] == _TARGET_VALUE
    check_fields("compare", compare, _COMPARE_VALUE if is_value else _COMPARE_END, required=4)
    if not compare[2]:
        raise errors.empty_key()
    if compare[0] > _TARGET_MAX:
        raise InvalidArgument(f"coord: unknown compare target {compare[0]}")


def _check_compact(arguments: Any) -> None:
    check_fields("compact", arguments, _COMPACT, required=1)


def _check_grant(arguments: Any) -> None:
    check_fields("lease_grant", arguments, _GRANT, required=1)
    if arguments[0] > LEASE_TTL_S_MAX:
        raise errors.lease_ttl_too_large()
    if len(arguments) > 1 and not 0 <= arguments[1] <= LEASE_ID_MAX:
        raise InvalidArgument(f"coord: a lease id must be 1 … {LEASE_ID_MAX}, or 0 to have one chosen")


def _check_revoke(arguments: Any) -> None:
    check_fields("lease_revoke", arguments, _REVOKE, required=1)
    if not 0 < arguments[0] <= LEASE_ID_MAX:
        raise errors.lease_not_found()


def _check_register(arguments: Any) -> None:
    check_fields("register", arguments, (), required=0)


def _check_alarm(arguments: Any) -> None:
    check_fields("alarm", arguments, _ALARM, required=3)
    action, member, alarm = arguments
    if action not in (AlarmAction.ACTIVATE, AlarmAction.DEACTIVATE):
        raise InvalidArgument(f"coord: unknown alarm action {action}")
    if alarm > max(AlarmType):
        raise InvalidArgument(f"coord: unknown alarm {alarm}")
    if action == AlarmAction.ACTIVATE and (member == 0 or alarm == AlarmType.NONE):
        raise InvalidArgument("coord: activating an alarm needs a member and an alarm")


_CHECKS: Final = {
    int(Op.PUT): _check_put,
    int(Op.DELETE_RANGE): _check_delete,
    int(Op.COMPACT): _check_compact,
    int(Op.LEASE_GRANT): _check_grant,
    int(Op.LEASE_REVOKE): _check_revoke,
    int(Op.REGISTER): _check_register,
    int(Op.ALARM): _check_alarm,
}
_OPERATION_CHECKS: Final = {
    int(Op.PUT): _check_put,
    int(Op.DELETE_RANGE): _check_delete,
    int(Op.RANGE): _check_range,
}
