"""Products of a few rows with a matrix, on CUDA. Worker thread only.

cuBLAS takes the CPU 22 µs for each, of which the GPU needs 1 to 3 for the matrices of a model of
0.6 billion parameters; a kernel of our own takes 8. A decode step of 32 rows has 196 of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx.nn.layers.linear import Linear

_MULTIPLY = """
__device__ __forceinline__ void multiply(
    float (&sums)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
"""

# A block has 16 rows of the matrix, and each of its warps a part of their length. The order in
# which products are summed is free, so that every thread reads 16 bytes at a time.
_PRODUCT = """
constexpr int WARPS = 8;
const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quarter = lane % 4;
const int rows = x_shape[0], length = matrix_shape[1], outputs = matrix_shape[0];
const int first = blockIdx.x * 16;
const T* upper = matrix + static_cast<int64_t>(first + group) * length + 8 * quarter;
const T* lower = upper + 8 * static_cast<int64_t>(length);
const T* inputs = x + static_cast<int64_t>(group) * length + 8 * quarter;
float sums[TILES][4] = {};
#pragma unroll 4
for (int at = warp * 32; at < length; at += WARPS * 32) {
  const uint4 a = *reinterpret_cast<const uint4*>(upper + at);
  const uint4 b = *reinterpret_cast<const uint4*>(lower + at);
  #pragma unroll
  for (int i = 0; i < TILES; i++) {
    uint4 c = {0, 0, 0, 0};
    if (i * 8 + group < rows)
      c = *reinterpret_cast<const uint4*>(inputs + static_cast<int64_t>(i) * 8 * length + at);
    multiply(sums[i], a.x, b.x, a.y, b.y, c.x, c.y);
    multiply(sums[i], a.z, b.z, a.w, b.w, c.z, c.w);
  }
}
__shared__ float parts[WARPS][TILES * 8][17];
#pragma unroll
for (int i = 0; i < TILES; i++) {
  const int row = i * 8 + 2 * quarter;
  parts[warp][row][group] = sums[i][0];
  parts[warp][row + 1][group] = sums[i][1];
  parts[warp][row][group + 8] = sums[i][2];
  parts[warp][row + 1][group + 8] = sums[i][3];
}
__syncthreads();
for (int i = threadIdx.x; i < rows * 16; i += WARPS * 32) {
  float sum = 0;
  for (int part = 0; part < WARPS; part++) sum += parts[part][i / 16][i % 16];
  out[static_cast<int64_t>(i / 16) * outputs + first + i % 16] = static_cast<T>(sum);
}
"""

_THREADS, _OUTPUTS = 256, 16  # of a block
_PART = 32  # of a matrix row, for one warp at a time
_MOST_ROWS = 32
_MOST_BYTES = 1 << 25  # larger matrices keep the GPU busy for longer than cuBLAS takes the CPU


@functools.cache
def _product() -> Callable[..., list[mx.array]]:
    kernel: Callable[..., list[mx.array]] = mx.fast.cuda_kernel(  # type: ignore[assignment]
        name="portico_product",
        input_names=["x", "matrix"],
        output_names=["out"],
        source=_PRODUCT,
        header=_MULTIPLY,
    )
    return kernel


class NarrowLinear(Linear):
    """The same layer, quicker for 2 to 32 rows."""

    def __call__(self, x: mx.array) -> mx.array:
        matrix: mx.array = self["weight"]
        outputs, length = matrix.shape
        rows = x.size // length
        if not 1 < rows <= _MOST_ROWS or x.dtype != matrix.dtype:
            wide: mx.array = super().__call__(x)
            return wide
        [out] = _product()(
            inputs=[x.reshape(rows, length), matrix],
            template=[("T", x.dtype), ("TILES", -(-rows // 8))],
            grid=(outputs // _OUTPUTS * _THREADS, 1, 1),
            threadgroup=(_THREADS, 1, 1),
            output_shapes=[(rows, outputs)],
            output_dtypes=[x.dtype],
        )
        return out.reshape(*x.shape[:-1], outputs)


def narrow(network: Any) -> None:
    """Its layers that can be, are quick for few rows from now on."""
    for part in network.modules():
        if type(part) is Linear and _is_fit(part):
            part.__class__ = NarrowLinear


def widen(network: Any) -> None:
    """Undo it."""
    for part in network.modules():
        if type(part) is NarrowLinear:
            part.__class__ = Linear  # type: ignore[assignment]


def _is_fit(layer: Linear) -> bool:
    matrix: mx.array = layer["weight"]
    outputs, length = matrix.shape
    plain = matrix.dtype == mx.bfloat16 and "bias" not in layer
    return plain and not outputs % _OUTPUTS and not length % _PART and matrix.nbytes <= _MOST_BYTES
