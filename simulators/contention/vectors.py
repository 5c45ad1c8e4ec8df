"""Fixed-width vectors for numba: one lane per candidate.

Three types exist inside compiled code only: `LANES` float32 numbers, `LANES` int32 numbers and `LANES` int8 numbers.
LLVM maps each to as many registers as the machine needs, so the same code runs with AVX-512, AVX2 or NEON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

LANES = 64
"""Candidates that are simulated side by side."""


class _Vector(types.Type):
    """A vector type of compiled code."""


class _Floats(_Vector):
    pass


class _Ints(_Vector):
    pass


class _Bytes(_Vector):
    pass


_FLOATS, _INTS, _BYTES = _Floats(name="Floats"), _Ints(name="Ints"), _Bytes(name="Bytes")
_IR = {
    _Floats: ir.VectorType(ir.FloatType(), LANES),
    _Ints: ir.VectorType(ir.IntType(32), LANES),
    _Bytes: ir.VectorType(ir.IntType(8), LANES),
}
_OF_DTYPE = {types.float32: _FLOATS, types.int32: _INTS, types.int8: _BYTES}


def _register(kind: type[_Vector]) -> None:
    class Model(models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, fe_type: Any) -> None:
            super().__init__(manager, fe_type, _IR[kind])

    register_model(kind)(Model)


for _kind in _IR:
    _register(_kind)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, pointee: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """`LANES` neighbours of a flat array, from `index` on."""
    vector = _OF_DTYPE[array.dtype]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, array, args[0], args[1], _IR[type(vector)])
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write `LANES` neighbours of a flat array, from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _address(context, builder, array, args[0], args[1], _IR[type(vector)])
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


def _spread(builder: Any, value: Any, kind: type[_Vector]) -> Any:
    one = builder.insert_element(ir.Constant(_IR[kind], ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_IR[kind], ir.Undefined), zeros)


@intrinsic
def spread(typing: Any, value: Any) -> Any:
    """The same float32 in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _spread(builder, args[0], _Floats)

    return _FLOATS(types.float32), generate


def _extreme(name: str) -> Callable[..., Any]:
    def body(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(_IR[_Floats], [_IR[_Floats], _IR[_Floats]])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
            return builder.call(function, args, fastmath=("nnan",))

        return _FLOATS(_FLOATS, _FLOATS), generate

    return body


# As calls, not as comparisons: from those LLVM makes masked stores, which later loads have to wait for.
smaller = intrinsic(_extreme("minnum"))
larger = intrinsic(_extreme("maxnum"))


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """a + b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args) if a is _FLOATS else builder.add(*args)

    return a(a, a), generate


@intrinsic
def subtract(typing: Any, a: Any, b: Any) -> Any:
    """a - b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fsub(*args)

    return a(a, a), generate


@intrinsic
def where_equal(typing: Any, codes: Any, code: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where `codes == code`, else `no`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = builder.icmp_signed("==", args[0], _spread(builder, args[1], _Bytes))
        return builder.select(mask, args[2], args[3])

    return _FLOATS(_BYTES, types.int8, _FLOATS, _FLOATS), generate


@intrinsic
def where_routed(typing: Any, codes: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where `codes >= 0`, else `no`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = builder.icmp_signed(">=", args[0], ir.Constant(_IR[_Bytes], None))
        return builder.select(mask, args[1], args[2])

    return _FLOATS(_BYTES, _FLOATS, _FLOATS), generate


@intrinsic
def count_above(typing: Any, values: Any, limit: Any, counts: Any) -> Any:
    """`counts`, one more in the lanes where `values > limit`; NaN is above nothing."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        above = builder.fcmp_ordered(">", args[0], _spread(builder, args[1], _Floats))
        return builder.sub(args[2], builder.sext(above, _IR[_Ints]))

    return _INTS(_FLOATS, types.float32, _INTS), generate


@intrinsic
def bins(typing: Any, values: Any, shift: Any, low: Any, high: Any) -> Any:
    """Leading bits of each float, cut to `[low, high]`, minus `low`; NaN comes to the last bin."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = builder.bitcast(args[0], _IR[_Ints])
        shift_v, low_v, high_v = (_spread(builder, arg, _Ints) for arg in args[1:])
        code = builder.ashr(code, shift_v)
        code = builder.select(builder.icmp_signed("<", code, low_v), low_v, code)
        code = builder.select(builder.icmp_signed(">", code, high_v), high_v, code)
        return builder.sub(code, low_v)

    return _INTS(_FLOATS, types.int32, types.int32, types.int32), generate


@intrinsic
def load_word(typing: Any, array: Any, index: Any) -> Any:
    """Eight neighbouring int8 as one uint64, from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, array, args[0], args[1], ir.IntType(64)), align=1)

    return types.uint64(array, types.intp), generate


@intrinsic
def store_word(typing: Any, array: Any, index: Any, word: Any) -> Any:
    """Write eight neighbouring int8, from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, array, args[0], args[1], ir.IntType(64)), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint64), generate


def _any(builder: Any, mask: Any) -> Any:
    bits = ir.IntType(LANES)
    return builder.icmp_unsigned("!=", builder.bitcast(mask, bits), ir.Constant(bits, 0))


@intrinsic
def any_equal(typing: Any, codes: Any, code: Any) -> Any:
    """Whether a lane has this code."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _any(builder, builder.icmp_signed("==", args[0], _spread(builder, args[1], _Bytes)))

    return types.boolean(_BYTES, types.int8), generate


@intrinsic
def any_above(typing: Any, a: Any, b: Any) -> Any:
    """Whether `a > b` in a lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _any(builder, builder.fcmp_ordered(">", args[0], args[1]))

    return types.boolean(_FLOATS, _FLOATS), generate
