"""Kernels for MLX's CUDA build: attention of rows of different lengths. Worker thread only.

Both write into their inputs, which MLX knows nothing of. It is safe as `SlottedRows` uses them:
nothing else holds these arrays, and whatever reads them is launched by a later evaluation; those
of one stream are computed one after the other.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx

from adapters.mlx.slots import Span

_Kernel = Callable[..., list[mx.array]]

_WARPS = 32

_ATTEND = """
constexpr int PER = D / 32;
const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
const int head = blockIdx.x, row = blockIdx.y;
const int kv = head / (H / KV);
const int end = ends[row];
const int64_t base = (static_cast<int64_t>(row) * KV + kv) * keys_shape[2] * D;
const int64_t query = (static_cast<int64_t>(row) * H + head) * D;
const T* own_k = new_keys + (static_cast<int64_t>(row) * KV + kv) * D;
const T* own_v = new_values + (static_cast<int64_t>(row) * KV + kv) * D;
if (head % (H / KV) == 0 && warp == 0) {
  T* k = const_cast<T*>(keys) + base + static_cast<int64_t>(end) * D;
  T* v = const_cast<T*>(values) + base + static_cast<int64_t>(end) * D;
  for (int i = lane; i < D; i += 32) { k[i] = own_k[i]; v[i] = own_v[i]; }
}
float q[PER], acc[PER];
for (int i = 0; i < PER; i++) {
  q[i] = SCALE * static_cast<float>(queries[query + lane * PER + i]);
  acc[i] = 0;
}
float best = -INFINITY, sum = 0;
for (int at = warp; at <= end; at += WARPS) {  // the last is another block's to write
  const T* k = at < end ? keys + base + static_cast<int64_t>(at) * D : own_k;
  const T* v = at < end ? values + base + static_cast<int64_t>(at) * D : own_v;
  float score = 0;
  for (int i = 0; i < PER; i++) score += q[i] * static_cast<float>(k[lane * PER + i]);
  for (int o = 16; o; o /= 2) score += __shfl_xor_sync(0xffffffff, score, o);
  const float top = fmaxf(best, score), fade = __expf(best - top), weight = __expf(score - top);
  sum = sum * fade + weight;
  for (int i = 0; i < PER; i++)
    acc[i] = acc[i] * fade + weight * static_cast<float>(v[lane * PER + i]);
  best = top;
}
__shared__ float bests[WARPS], sums[WARPS], accs[WARPS][D];
if (lane == 0) { bests[warp] = best; sums[warp] = sum; }
for (int i = 0; i < PER; i++) accs[warp][lane * PER + i] = acc[i];
__syncthreads();
if (threadIdx.x < D) {
  float top = -INFINITY, total = 0, o = 0;
  for (int w = 0; w < WARPS; w++) top = fmaxf(top, bests[w]);
  for (int w = 0; w < WARPS; w++) {
    const float fade = __expf(bests[w] - top);
    total += fade * sums[w];
    o += fade * accs[w][threadIdx.x];
  }
  out[query + threadIdx.x] = static_cast<T>(o / total);
}
"""

_PUT = """
const int head = blockIdx.x, row = blockIdx.y, heads = gridDim.x;
const int slot = where[3 * row], begin = where[3 * row + 1], end = where[3 * row + 2];
const int64_t from = ((static_cast<int64_t>(row) * heads + head) * new_keys_shape[2] + begin) * D;
const int64_t to = (static_cast<int64_t>(slot) * heads + head) * keys_shape[2] * D;
const int64_t count = static_cast<int64_t>(end - begin) * D;
T* k = const_cast<T*>(keys) + to;
T* v = const_cast<T*>(values) + to;
for (int64_t i = blockIdx.z * blockDim.x + threadIdx.x; i < count; i += gridDim.z * blockDim.x) {
  k[i] = new_keys[from + i];
  v[i] = new_values[from + i];
}
done[0] = 1;
"""

_PUT_THREADS, _PUT_PARTS = 256, 8
_MOST_WIDTH = 256  # of a head: shared memory ends there


class CudaKernels:
    """The keys and values that are kept have to be contiguous: copies would be written into."""

    def __init__(self) -> None:
        self._by_scale: dict[float, _Kernel] = {}
        self._put: _Kernel = mx.fast.cuda_kernel(  # type: ignore[assignment]
            name="portico_put",
            input_names=["new_keys", "new_values", "keys", "values", "where"],
            output_names=["done"],
            source=_PUT,
        )

    def attend(
        self,
        queries: mx.array,
        new: Sequence[mx.array],
        kept: Sequence[mx.array],
        ends: mx.array,
        scale: float,
    ) -> tuple[mx.array, mx.array, mx.array]:
        rows, heads, count, width = queries.shape
        kv_heads = new[0].shape[1]
        alike = new[0].shape == new[1].shape == (rows, kv_heads, 1, width)
        if count != 1 or not alike or width % 32 or width > _MOST_WIDTH or heads % kv_heads:
            raise ValueError("attention of another kind")
        [out] = self._attention(scale)(
            inputs=[queries, *new, *kept, ends],
            template=[
                ("T", queries.dtype),
                ("D", width),
                ("H", heads),
                ("KV", kv_heads),
                ("WARPS", _WARPS),
            ],
            grid=(heads * _WARPS * 32, rows, 1),
            threadgroup=(_WARPS * 32, 1, 1),
            output_shapes=[queries.shape],
            output_dtypes=[queries.dtype],
        )
        return out, kept[0], kept[1]

    def put(
        self,
        kept: Sequence[mx.array],
        rows: Sequence[mx.array],
        where: Sequence[Span],
    ) -> tuple[mx.array, mx.array, mx.array]:
        heads, width = kept[0].shape[1], kept[0].shape[3]
        [done] = self._put(
            inputs=[*rows, *kept, mx.array(list(where))],
            template=[("T", kept[0].dtype), ("D", width)],
            grid=(heads * _PUT_THREADS, len(where), _PUT_PARTS),
            threadgroup=(_PUT_THREADS, 1, 1),
            output_shapes=[(1,)],
            output_dtypes=[mx.uint32],
        )
        return kept[0], kept[1], done

    def _attention(self, scale: float) -> _Kernel:
        if scale not in self._by_scale:
            self._by_scale[scale] = mx.fast.cuda_kernel(  # type: ignore[assignment]
                name="portico_attend",
                input_names=["queries", "new_keys", "new_values", "keys", "values", "ends"],
                output_names=["out"],
                source=_ATTEND,
                header=f"constexpr float SCALE = {float(scale)!r}f;\n",
            )
        return self._by_scale[scale]
