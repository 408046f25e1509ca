/* Tiles: 16 rows of 64 bytes each, of which the machine has eight, named by a literal number. The primitives exist
 * between t_begin() and t_end(), which a kernel calls in each range it runs: a thread keeps no tile state between them.
 */
#ifndef BNN_SIMD_AMX_H
#define BNN_SIMD_AMX_H

#define BNN_TILES 1

#define BNN_EIGHT(x) \
  { x, x, x, x, x, x, x, x }
BNN_INLINE void t_begin(void) {
  static const struct {
    uint8_t palette, start_row, none[14];
    uint16_t row_bytes[8];
    uint8_t no_bytes[16], rows[8], no_rows[8];
  } config = {.palette = 1, .row_bytes = BNN_EIGHT(64), .rows = BNN_EIGHT(16)};
  _tile_loadconfig(&config);
}
#undef BNN_EIGHT
BNN_INLINE void t_end(void) { _tile_release(); }

/* `stride` bytes from a row to the next. Loads are fastest where every row is a cache line. */
#define t_load(tile, p, stride) _tile_loadd(tile, p, stride)
#define t_store(tile, p, stride) _tile_stored(tile, p, stride)
#define t_zero(tile) _tile_zero(tile)

/* Adds to sum[m][n], an int32, the products of signed bytes a[m][4 k + i] * b[k][4 n + i] over k < 16 and i < 4. */
#define t_dot(sum, a, b) _tile_dpbssd(sum, a, b)

/* ---- floats as fixed point, for tiles ---------------------------------------------------------------------------- */

BNN_INLINE vf32 v_abs_f32(vf32 x) { return _mm512_abs_ps(x); }
BNN_INLINE vf32 v_max_f32(vf32 a, vf32 b) { return _mm512_max_ps(a, b); }
BNN_INLINE float v_peak_f32(vf32 x) { return _mm512_reduce_max_ps(x); }
BNN_INLINE float v_total_f32(vf32 x) { return _mm512_reduce_add_ps(x); }
BNN_INLINE vu32 v_nearest(vf32 x) { return _mm512_cvtps_epi32(x); }
BNN_INLINE vu32 v_shift_left(vu32 x, int bits) { return _mm512_sll_epi32(x, _mm_cvtsi32_si128(bits)); }

/* 64 integers as four signed digits of base 256, to a line of 64 bytes each, the highest digit first and `stride` bytes
 * apart: integer 4 (4 v + j) + i of vector v is byte 4 (4 j + v) + i. */
BNN_INLINE void t_store_digits(uint8_t *out, int64_t stride, vu32 a, vu32 b, vu32 c, vu32 d) {
  const __m512i bias = _mm512_set1_epi8(-128);
  const __m512i gather = _mm512_broadcast_i32x4(_mm_setr_epi8(3, 7, 11, 15, 2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12));
  a = _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_add_epi32(a, bias), bias), gather);
  b = _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_add_epi32(b, bias), bias), gather);
  c = _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_add_epi32(c, bias), bias), gather);
  d = _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_add_epi32(d, bias), bias), gather);
  __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
  _mm512_store_si512(out, _mm512_unpacklo_epi64(ab, cd));
  _mm512_store_si512(out + stride, _mm512_unpackhi_epi64(ab, cd));
  ab = _mm512_unpackhi_epi32(a, b), cd = _mm512_unpackhi_epi32(c, d);
  _mm512_store_si512(out + 2 * stride, _mm512_unpacklo_epi64(ab, cd));
  _mm512_store_si512(out + 3 * stride, _mm512_unpackhi_epi64(ab, cd));
}

#endif
