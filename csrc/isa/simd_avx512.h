/* Sixteen 32-bit lanes. The primitives are described in simd_portable.h; counting is the level's own. */
#ifndef BNN_SIMD_AVX512_H
#define BNN_SIMD_AVX512_H

#define BNN_LANES 16
#define BNN_TILE_VECTORS 2
#define BNN_REGISTERS 32

typedef __m512i vu32;
typedef __m512 vf32;
typedef struct {
  __m512d low, high;
} vf64;
typedef __mmask16 vmask;

/* ---- words ----------------------------------------------------------------------------------------------------- */

BNN_INLINE vu32 v_set(uint32_t x) { return _mm512_set1_epi32((int)x); }
BNN_INLINE vu32 v_load(const void *p) { return _mm512_loadu_si512(p); }
BNN_INLINE void v_store(void *p, vu32 x) { _mm512_storeu_si512(p, x); }
BNN_INLINE vmask v_first(int64_t n) { return (vmask)(n < BNN_LANES ? (1u << n) - 1 : 0xffffu); }
BNN_INLINE vu32 v_load_part(const void *p, int64_t n) { return _mm512_maskz_loadu_epi32(v_first(n), p); }
BNN_INLINE void v_store_part(void *p, vu32 x, int64_t n) { _mm512_mask_storeu_epi32(p, v_first(n), x); }
BNN_INLINE __m256i v_load_eight_apart(const uint32_t *p, int64_t step, __mmask8 first) {
  const __m512i index = _mm512_mullo_epi64(_mm512_set1_epi64(step), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm512_mask_i64gather_epi32(_mm256_setzero_si256(), first, index, p, 4);
}
BNN_INLINE vu32 v_load_apart(const uint32_t *p, int64_t step, int64_t n) {
  vmask first = v_first(n);
  return _mm512_inserti64x4(_mm512_castsi256_si512(v_load_eight_apart(p, step, (__mmask8)first)),
                            v_load_eight_apart(p + 8 * step, step, (__mmask8)(first >> 8)), 1);
}
BNN_INLINE vu32 v_and(vu32 a, vu32 b) { return _mm512_and_si512(a, b); }
BNN_INLINE vu32 v_xor(vu32 a, vu32 b) { return _mm512_xor_si512(a, b); }
BNN_INLINE vu32 v_add(vu32 a, vu32 b) { return _mm512_add_epi32(a, b); }
BNN_INLINE vu32 v_sub(vu32 a, vu32 b) { return _mm512_sub_epi32(a, b); }
BNN_INLINE vu32 v_mul(vu32 a, vu32 b) { return _mm512_mullo_epi32(a, b); }
BNN_INLINE vu32 v_shift_left(vu32 x, int bits) { return _mm512_sll_epi32(x, _mm_cvtsi32_si128(bits)); }
BNN_INLINE vu32 v_shift_right(vu32 x, int bits) { return _mm512_srl_epi32(x, _mm_cvtsi32_si128(bits)); }
BNN_INLINE vu32 v_xor3(vu32 a, vu32 b, vu32 c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
BNN_INLINE vu32 v_xor_and(vu32 a, vu32 b, vu32 c) { return _mm512_ternarylogic_epi32(a, b, c, 0x78); }
BNN_INLINE vu32 v_and_xor(vu32 a, vu32 b, vu32 c) { return _mm512_ternarylogic_epi32(a, b, c, 0x60); }
BNN_INLINE vu32 v_carry(vu32 t, vu32 s, vu32 ones) { return _mm512_ternarylogic_epi32(t, s, ones, 0x3a); }

/* ---- floats ---------------------------------------------------------------------------------------------------- */

BNN_INLINE vf32 v_set_f32(float x) { return _mm512_set1_ps(x); }
BNN_INLINE vf32 v_load_f32(const float *p) { return _mm512_loadu_ps(p); }
BNN_INLINE vf32 v_load_part_f32(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(v_first(n), p); }
BNN_INLINE void v_store_f32(float *p, vf32 x) { _mm512_storeu_ps(p, x); }
BNN_INLINE void v_store_part_f32(float *p, vf32 x, int64_t n) { _mm512_mask_storeu_ps(p, v_first(n), x); }
BNN_INLINE vf32 v_add_f32(vf32 a, vf32 b) { return _mm512_add_ps(a, b); }
BNN_INLINE vf32 v_sub_f32(vf32 a, vf32 b) { return _mm512_sub_ps(a, b); }
BNN_INLINE vf32 v_mul_f32(vf32 a, vf32 b) { return _mm512_mul_ps(a, b); }
BNN_INLINE vf32 v_div_f32(vf32 a, vf32 b) { return _mm512_div_ps(a, b); }
BNN_INLINE vf32 v_fma_f32(vf32 a, vf32 b, vf32 c) { return _mm512_fmadd_ps(a, b, c); }
BNN_INLINE vf32 v_float(vu32 x) { return _mm512_cvtepi32_ps(x); }
BNN_INLINE vu32 v_load_i16(const int16_t *p) { return _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
BNN_INLINE void v_store_i16(int16_t *p, vu32 x) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(x)); }
BNN_INLINE vu32 v_bits_of(vf32 x) { return _mm512_castps_si512(x); }
BNN_INLINE vf32 v_as_float(vu32 x) { return _mm512_castsi512_ps(x); }

BNN_INLINE vf64 v_set_f64(double x) { return (vf64){_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
BNN_INLINE vf64 v_load_f64(const double *p) { return (vf64){_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)}; }
BNN_INLINE vf64 v_load_part_f64(const double *p, int64_t n) {
  vmask first = v_first(n);
  return (vf64){_mm512_maskz_loadu_pd((__mmask8)first, p), _mm512_maskz_loadu_pd((__mmask8)(first >> 8), p + 8)};
}
BNN_INLINE void v_store_f64(double *p, vf64 x) {
  _mm512_storeu_pd(p, x.low);
  _mm512_storeu_pd(p + 8, x.high);
}
BNN_INLINE void v_store_part_f64(double *p, vf64 x, int64_t n) {
  vmask first = v_first(n);
  _mm512_mask_storeu_pd(p, (__mmask8)first, x.low);
  _mm512_mask_storeu_pd(p + 8, (__mmask8)(first >> 8), x.high);
}

/* ---- masks ----------------------------------------------------------------------------------------------------- */

/* Of the lower bytes, whatever is above: gcc 12 keeps masks of 8 bits in slots that it reads 16 bits of. */
BNN_INLINE vmask v_join(__mmask8 low, __mmask8 high) { return _mm512_kunpackb(high, low); }
BNN_INLINE vmask v_less_f32(vf32 a, vf32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
BNN_INLINE vmask v_within_f32(vf32 x, vf32 limit) { return _mm512_cmp_ps_mask(_mm512_abs_ps(x), limit, _CMP_LE_OQ); }
BNN_INLINE vmask v_nan_f32(vf32 x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
BNN_INLINE vmask v_less_f64(vf64 a, vf64 b) {
  return v_join(_mm512_cmp_pd_mask(a.low, b.low, _CMP_LT_OQ), _mm512_cmp_pd_mask(a.high, b.high, _CMP_LT_OQ));
}
BNN_INLINE vmask v_within_f64(vf64 x, vf64 limit) {
  return v_join(_mm512_cmp_pd_mask(_mm512_abs_pd(x.low), limit.low, _CMP_LE_OQ),
                _mm512_cmp_pd_mask(_mm512_abs_pd(x.high), limit.high, _CMP_LE_OQ));
}
BNN_INLINE vmask v_nan_f64(vf64 x) {
  return v_join(_mm512_cmp_pd_mask(x.low, x.low, _CMP_UNORD_Q), _mm512_cmp_pd_mask(x.high, x.high, _CMP_UNORD_Q));
}

BNN_INLINE vmask v_mask_none(void) { return 0; }
BNN_INLINE vmask v_mask_or(vmask a, vmask b) { return a | b; }
BNN_INLINE vmask v_mask_without(vmask a, vmask b) { return (vmask)(a & ~b); }
BNN_INLINE uint32_t v_mask_bits(vmask m) { return m; }
BNN_INLINE vmask v_mask_of(uint32_t bits) { return (vmask)bits; }
BNN_INLINE vmask v_test(vu32 x, vu32 bit) { return _mm512_test_epi32_mask(x, bit); }
BNN_INLINE vu32 v_or_where(vu32 x, vmask m, vu32 bit) { return _mm512_mask_or_epi32(x, m, x, bit); }
BNN_INLINE vf32 v_choose_f32(vmask m, vf32 yes, vf32 no) { return _mm512_mask_blend_ps(m, no, yes); }
BNN_INLINE vf64 v_add_f64(vf64 a, vf64 b) { return (vf64){_mm512_add_pd(a.low, b.low), _mm512_add_pd(a.high, b.high)}; }
BNN_INLINE vf64 v_choose_f64(vmask m, vf64 yes, vf64 no) {
  return (vf64){_mm512_mask_blend_pd((__mmask8)m, no.low, yes.low),
                _mm512_mask_blend_pd((__mmask8)(m >> 8), no.high, yes.high)};
}

BNN_INLINE vu32 v_level_f32(vf32 x, vf32 levels) {
  vf32 inside = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(1)), _mm512_setzero_ps());
  return _mm512_cvtps_epi32(_mm512_mul_ps(inside, levels));
}
BNN_INLINE __m256i v_level_pd(__m512d x, __m512d levels) {
  __m512d inside = _mm512_max_pd(_mm512_min_pd(x, _mm512_set1_pd(1)), _mm512_setzero_pd());
  return _mm512_cvtpd_epi32(_mm512_mul_pd(inside, levels));
}
BNN_INLINE vu32 v_level_f64(vf64 x, vf64 levels) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(v_level_pd(x.low, levels.low)), v_level_pd(x.high, levels.high), 1);
}

/* ---- register tables and bit transposes: the signed kernels ------------------------------------------------------ */

/* A register table holds the signed sums of four floats, of which the low nibble of a lane, sign bits, picks one: all
 * 16 of them here. A tile has BNN_TABLE_VECTORS of columns at most. */
#define BNN_TABLE_VECTORS 4

typedef vu32 vchoice;

BNN_INLINE vf32 v_table_f32(float a, float b, float c, float d) {
  const __m512 one = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-1.0f);
  __m512 sum = _mm512_mul_ps(_mm512_set1_ps(a), _mm512_mask_blend_ps(0xaaaa, one, minus));
  sum = _mm512_fmadd_ps(_mm512_set1_ps(b), _mm512_mask_blend_ps(0xcccc, one, minus), sum);
  sum = _mm512_fmadd_ps(_mm512_set1_ps(c), _mm512_mask_blend_ps(0xf0f0, one, minus), sum);
  return _mm512_fmadd_ps(_mm512_set1_ps(d), _mm512_mask_blend_ps(0xff00, one, minus), sum);
}
BNN_INLINE vf32 v_look_up_f32(vf32 table, vu32 nibbles) { return _mm512_permutexvar_ps(nibbles, table); }
/* Eight nibbles a lane, as v_choice takes the first of them. */
BNN_INLINE vu32 v_nibbles(vu32 words) { return words; }
BNN_INLINE vu32 v_next_nibble(vu32 nibbles) { return _mm512_srli_epi32(nibbles, 4); }
BNN_INLINE vu32 v_nibble(vu32 nibbles, int i) { return (vu32)((__v16su)nibbles >> 4 * i); }
/* What a nibble chooses in every table of four floats. */
BNN_INLINE vchoice v_choice(vu32 nibbles) { return nibbles; }
/* By an addition or, which is the same, a multiplication with one: where these have ports of their own, half of each
 * take less time than all of either. Compilers do not see that it is one, and so do not add. */
BNN_INLINE vf32 v_hidden_one(void) {
  vf32 one = v_set_f32(1);
  __asm__("" : "+v"(one));
  return one;
}
BNN_INLINE vf32 v_add_choice_f32(vf32 sum, vf32 table, vchoice choice, vf32 one, int multiply) {
  vf32 x = v_look_up_f32(table, choice);
  return multiply ? v_fma_f32(x, one, sum) : v_add_f32(sum, x);
}

/* Where a few of many floats are not zero, they are worth listing. */
#define BNN_SPARSE 1

BNN_INLINE vu32 v_lanes(void) { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
/* By as many bits as each lane of `bits` says, modulo 32. */
BNN_INLINE vu32 v_rotate_left(vu32 x, vu32 bits) { return _mm512_rolv_epi32(x, bits); }

/* The lanes that are set in `m`, one after another; writes a whole vector. */
BNN_INLINE void v_compress(void *out, vu32 x, vmask m) { v_store(out, _mm512_maskz_compress_epi32(m, x)); }

/* One step of two 16 x 16 bit transposes side by side: lanes `distance` apart trade half of their bits. */
BNN_INLINE vu32 v_trade_bits(vu32 x, vu32 partner, int distance, vmask upper, uint32_t kept) {
  vu32 keep = _mm512_mask_blend_epi32(upper, v_set(kept), v_set(~kept));
  vu32 turn = _mm512_mask_blend_epi32(upper, v_set((uint32_t)distance), v_set((uint32_t)(32 - distance)));
  return _mm512_ternarylogic_epi32(keep, x, _mm512_rolv_epi32(partner, turn), 0xca); /* keep ? x : turned */
}
BNN_INLINE vu32 v_transpose_halves(vu32 x) {
  x = v_trade_bits(x, _mm512_shuffle_i32x4(x, x, 0x4e), 8, 0xff00, 0x00ff00ff);
  x = v_trade_bits(x, _mm512_shuffle_i32x4(x, x, 0xb1), 4, 0xf0f0, 0x0f0f0f0f);
  x = v_trade_bits(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC), 2, 0xcccc, 0x33333333);
  return v_trade_bits(x, _mm512_shuffle_epi32(x, _MM_PERM_CDAB), 1, 0xaaaa, 0x55555555);
}
/* Of 32 words in place: bit j of word i becomes bit i of word j. */
BNN_INLINE void v_transpose_bits(uint32_t *words) {
  const vu32 low = v_set(0xffff);
  vu32 x = v_load(words), y = v_load(words + 16);
  vu32 upper = _mm512_ternarylogic_epi32(low, x, _mm512_rol_epi32(y, 16), 0xca);
  vu32 lower = _mm512_ternarylogic_epi32(low, _mm512_rol_epi32(x, 16), y, 0xca);
  v_store(words, v_transpose_halves(upper));
  v_store(words + 16, v_transpose_halves(lower));
}
/* Lane i of a, b, c and d to out[i * stride] .. [+ 3]. */
BNN_INLINE void v_store_quarters_f32(float *out, int64_t stride, vf32 x) {
  _mm_storeu_ps(out, _mm512_castps512_ps128(x));
  _mm_storeu_ps(out + 4 * stride, _mm512_extractf32x4_ps(x, 1));
  _mm_storeu_ps(out + 8 * stride, _mm512_extractf32x4_ps(x, 2));
  _mm_storeu_ps(out + 12 * stride, _mm512_extractf32x4_ps(x, 3));
}
BNN_INLINE void v_store_turned_f32(float *out, int64_t stride, vf32 a, vf32 b, vf32 c, vf32 d) {
  __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b)), cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
  v_store_quarters_f32(out, stride, _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)));
  v_store_quarters_f32(out + stride, stride, _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
  ab = _mm512_castps_pd(_mm512_unpackhi_ps(a, b)), cd = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
  v_store_quarters_f32(out + 2 * stride, stride, _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)));
  v_store_quarters_f32(out + 3 * stride, stride, _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
}

/* ---- bytes and lanes out of order: the depthwise kernels -------------------------------------------------------- */

typedef __m256i vbytes;

BNN_INLINE vbytes v_no_bytes(void) { return _mm256_setzero_si256(); }
BNN_INLINE vbytes v_append_bits(vbytes x, uint32_t bits) {
  x = _mm256_add_epi8(x, x);
  return _mm256_mask_add_epi8(x, bits, x, _mm256_set1_epi8(1));
}
BNN_INLINE void v_store_bytes(uint8_t *p, vbytes x) { _mm256_storeu_si256((__m256i *)p, x); }
BNN_INLINE vu32 v_load_bytes(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
BNN_INLINE vf32 v_pick_f32(vf32 x, vu32 index) { return _mm512_permutexvar_ps(index, x); }

#endif
