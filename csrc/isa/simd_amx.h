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

/* Between what is stored and the loads of tiles that read it: a compiler may not see that they do. */
BNN_INLINE void t_stored(void) { __asm__ volatile("" ::: "memory"); }

/* `stride` bytes from a row to the next. Loads are fastest where every row is a cache line. */
#define t_load(tile, p, stride) _tile_loadd(tile, p, stride)
/* The same, of what will not stay in the first cache. */
#define t_stream(tile, p, stride) _tile_stream_loadd(tile, p, stride)
#define t_store(tile, p, stride) _tile_stored(tile, p, stride)
#define t_zero(tile) _tile_zero(tile)

/* Adds to sum[m][n], an int32, the products of signed bytes a[m][4 k + i] * b[k][4 n + i] over k < 16 and i < 4. */
#define t_dot(sum, a, b) _tile_dpbssd(sum, a, b)

/* ---- floats as fixed point, for tiles ---------------------------------------------------------------------------- */

BNN_INLINE vf32 v_abs_f32(vf32 x) { return _mm512_abs_ps(x); }
/* b where one of them is NaN. */
BNN_INLINE vf32 v_max_f32(vf32 a, vf32 b) { return _mm512_max_ps(a, b); }
BNN_INLINE float v_peak_f32(vf32 x) { return _mm512_reduce_max_ps(x); }
BNN_INLINE float v_total_f32(vf32 x) { return _mm512_reduce_add_ps(x); }
BNN_INLINE vf32 v_root_f32(vf32 x) { return _mm512_sqrt_ps(x); }

/* Lane i is the sum, or the maximum, over the lanes of x[i]. */
#define BNN_FOLD(name, join)                                                                             \
  BNN_INLINE vf32 name##_four(const vf32 *x) {                                                           \
    __m512d a = _mm512_castps_pd(join(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1])));  \
    __m512d b = _mm512_castps_pd(join(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3])));  \
    return join(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b))); \
  }                                                                                                      \
  BNN_INLINE vf32 name##_halves(vf32 a, vf32 b) {                                                        \
    return join(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));                     \
  }                                                                                                      \
  BNN_INLINE vf32 name(const vf32 *x) {                                                                  \
    vf32 low = name##_halves(name##_four(x), name##_four(x + 4));                                        \
    vf32 high = name##_halves(name##_four(x + 8), name##_four(x + 12));                                  \
    return join(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));           \
  }
BNN_FOLD(v_totals_f32, v_add_f32)
BNN_FOLD(v_peaks_f32, v_max_f32)
#undef BNN_FOLD

BNN_INLINE vu32 v_nearest(vf32 x) { return _mm512_cvtps_epi32(x); }

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

/* ---- what tiles are made of ------------------------------------------------------------------------------------- */

/* 64 signed bytes: -1 where the bit is 1, else +1. */
BNN_INLINE void v_store_signs(int8_t *p, uint64_t bits) {
  _mm512_storeu_si512(p, _mm512_mask_blend_epi8(bits, _mm512_set1_epi8(1), _mm512_set1_epi8(-1)));
}

/* Lane i is p[index[i]]. */
BNN_INLINE vu32 v_gather(const uint32_t *p, vu32 index) { return _mm512_i32gather_epi32(index, p, 4); }

/* Of 64 words, 16 to a vector: bit 8 * byte + j of word i becomes bit i of out[j], j < 8. */
BNN_INLINE void v_turn_bits(const vu32 *words, int byte, uint64_t *out) {
#define BNN_REVERSED(i) i + 28, i + 24, i + 20, i + 16, i + 12, i + 8, i + 4, i
#define BNN_COLUMN(i) i, 8 + i, 16 + i, 24 + i, 32 + i, 40 + i, 48 + i, 56 + i
  static const uint8_t pick[64] = {BNN_REVERSED(0), BNN_REVERSED(32), BNN_REVERSED(64), BNN_REVERSED(96),
                                   BNN_REVERSED(0), BNN_REVERSED(32), BNN_REVERSED(64), BNN_REVERSED(96)};
  static const uint8_t column[64] = {BNN_COLUMN(0), BNN_COLUMN(1), BNN_COLUMN(2), BNN_COLUMN(3),
                                     BNN_COLUMN(4), BNN_COLUMN(5), BNN_COLUMN(6), BNN_COLUMN(7)};
#undef BNN_REVERSED
#undef BNN_COLUMN
  const __m512i diagonal = _mm512_set1_epi64((int64_t)0x8040201008040201);
  const __m512i i = _mm512_add_epi8(v_load(pick), _mm512_set1_epi8((char)byte));
  __m512i low = _mm512_permutex2var_epi8(words[0], i, words[1]), high = _mm512_permutex2var_epi8(words[2], i, words[3]);
  __m512i turned = _mm512_gf2p8affine_epi64_epi8(diagonal, _mm512_mask_blend_epi64(0xf0, low, high), 0);
  v_store(out, _mm512_permutexvar_epi8(v_load(column), turned));
}

/* In each lane, byte i of x[k] becomes byte k of x[i]. */
BNN_INLINE void v_turn_bytes(vu32 x[4]) {
  const vu32 half = v_set(0xffff), even = v_set(0xff00ff);
  vu32 a = _mm512_ternarylogic_epi32(half, x[0], _mm512_slli_epi32(x[2], 16), 0xca);
  vu32 b = _mm512_ternarylogic_epi32(half, x[1], _mm512_slli_epi32(x[3], 16), 0xca);
  vu32 c = _mm512_ternarylogic_epi32(half, _mm512_srli_epi32(x[0], 16), x[2], 0xca);
  vu32 d = _mm512_ternarylogic_epi32(half, _mm512_srli_epi32(x[1], 16), x[3], 0xca);
  x[0] = _mm512_ternarylogic_epi32(even, a, _mm512_slli_epi32(b, 8), 0xca);
  x[1] = _mm512_ternarylogic_epi32(even, _mm512_srli_epi32(a, 8), b, 0xca);
  x[2] = _mm512_ternarylogic_epi32(even, c, _mm512_slli_epi32(d, 8), 0xca);
  x[3] = _mm512_ternarylogic_epi32(even, _mm512_srli_epi32(c, 8), d, 0xca);
}

#endif
