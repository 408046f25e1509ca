/* Eight 32-bit lanes. The primitives are described in simd_portable.h. */
#ifndef BNN_SIMD_AVX2_H
#define BNN_SIMD_AVX2_H

#define BNN_LANES 8
#define BNN_TILE_ROWS 2
#define BNN_TILE_VECTORS 2
#define BNN_REGISTERS 16
#define BNN_CARRY_LEVELS 1
#define BNN_COUNT_ROOM 31

typedef __m256i vu32;
typedef __m256 vf32;
typedef struct {
  __m256d low, high;
} vf64;
typedef __m256i vmask;

/* ---- words ----------------------------------------------------------------------------------------------------- */

BNN_INLINE vu32 v_set(uint32_t x) { return _mm256_set1_epi32((int)x); }
BNN_INLINE vu32 v_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
BNN_INLINE void v_store(void *p, vu32 x) { _mm256_storeu_si256((__m256i *)p, x); }
BNN_INLINE __m256i v_first(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < BNN_LANES ? (int)n : BNN_LANES),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
BNN_INLINE vu32 v_load_part(const void *p, int64_t n) { return _mm256_maskload_epi32((const int *)p, v_first(n)); }
BNN_INLINE void v_store_part(void *p, vu32 x, int64_t n) { _mm256_maskstore_epi32((int *)p, v_first(n), x); }
BNN_INLINE __m128i v_load_four_apart(const uint32_t *p, int64_t step, __m128i first) {
  const __m256i index = _mm256_setr_epi64x(0, step, 2 * step, 3 * step);
  return _mm256_mask_i64gather_epi32(_mm_setzero_si128(), (const int *)p, index, first, 4);
}
BNN_INLINE vu32 v_load_apart(const uint32_t *p, int64_t step, int64_t n) {
  __m256i first = v_first(n);
  return _mm256_set_m128i(v_load_four_apart(p + 4 * step, step, _mm256_extracti128_si256(first, 1)),
                          v_load_four_apart(p, step, _mm256_castsi256_si128(first)));
}
BNN_INLINE vu32 v_and(vu32 a, vu32 b) { return _mm256_and_si256(a, b); }
BNN_INLINE vu32 v_xor(vu32 a, vu32 b) { return _mm256_xor_si256(a, b); }
BNN_INLINE vu32 v_add(vu32 a, vu32 b) { return _mm256_add_epi32(a, b); }
BNN_INLINE vu32 v_sub(vu32 a, vu32 b) { return _mm256_sub_epi32(a, b); }
BNN_INLINE vu32 v_mul(vu32 a, vu32 b) { return _mm256_mullo_epi32(a, b); }
BNN_INLINE vu32 v_shift_left(vu32 x, int bits) { return _mm256_sll_epi32(x, _mm_cvtsi32_si128(bits)); }
BNN_INLINE vu32 v_shift_right(vu32 x, int bits) { return _mm256_srl_epi32(x, _mm_cvtsi32_si128(bits)); }
BNN_INLINE vu32 v_xor3(vu32 a, vu32 b, vu32 c) { return _mm256_xor_si256(_mm256_xor_si256(b, c), a); }
BNN_INLINE vu32 v_xor_and(vu32 a, vu32 b, vu32 c) { return _mm256_xor_si256(a, _mm256_and_si256(b, c)); }
BNN_INLINE vu32 v_and_xor(vu32 a, vu32 b, vu32 c) { return _mm256_and_si256(a, _mm256_xor_si256(b, c)); }
BNN_INLINE vu32 v_carry(vu32 t, vu32 s, vu32 ones) {
  return _mm256_or_si256(_mm256_andnot_si256(s, t), _mm256_andnot_si256(t, ones));
}
BNN_INLINE vu32 v_count(vu32 x) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i table =
      _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble));
  __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
  return _mm256_add_epi8(low, high);
}
BNN_INLINE vu32 v_add_counts(vu32 a, vu32 b) { return _mm256_add_epi8(a, b); }
BNN_INLINE vu32 v_widen_counts(vu32 x) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(x, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
}

/* ---- tables of counts by nibble -----------------------------------------------------------------------------------
 */

#define BNN_NIBBLE_TABLES 1

/* For each value that a nibble of a column may have: in how many bits it differs from nibble `a`, plus 16 times the
 * same of `b`. */
BNN_INLINE vu32 v_pair_table(unsigned a, unsigned b) {
  const __m256i table =
      _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i nibble = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7,
                                          8, 9, 10, 11, 12, 13, 14, 15);
  __m256i lower = _mm256_shuffle_epi8(table, _mm256_xor_si256(nibble, _mm256_set1_epi8((char)a)));
  __m256i upper = _mm256_shuffle_epi8(table, _mm256_xor_si256(nibble, _mm256_set1_epi8((char)b)));
  return _mm256_or_si256(lower, _mm256_slli_epi16(upper, 4));
}
BNN_INLINE vu32 v_look_up_counts(vu32 table, vu32 nibbles) { return _mm256_shuffle_epi8(table, nibbles); }
BNN_INLINE vu32 v_upper_counts(vu32 counts) {
  return _mm256_and_si256(_mm256_srli_epi16(counts, 4), _mm256_set1_epi8(15));
}
/* A sum of tables without 16 times the sum of their upper counts. */
BNN_INLINE vu32 v_lower_counts(vu32 both, vu32 upper) {
  return _mm256_sub_epi8(both, _mm256_andnot_si256(_mm256_set1_epi8(15), _mm256_slli_epi16(upper, 4)));
}
/* Bytes to 16-bit halves, and halves to words, both in two parts of each 128 bits. */
BNN_INLINE vu32 v_low_bytes(vu32 x) { return _mm256_unpacklo_epi8(x, _mm256_setzero_si256()); }
BNN_INLINE vu32 v_high_bytes(vu32 x) { return _mm256_unpackhi_epi8(x, _mm256_setzero_si256()); }
BNN_INLINE vu32 v_add_halves(vu32 a, vu32 b) { return _mm256_add_epi16(a, b); }
BNN_INLINE vu32 v_low_halves(vu32 x) { return _mm256_unpacklo_epi16(x, _mm256_setzero_si256()); }
BNN_INLINE vu32 v_high_halves(vu32 x) { return _mm256_unpackhi_epi16(x, _mm256_setzero_si256()); }
BNN_INLINE void v_store_byte_nibbles(uint8_t *out, vu32 bytes) {
  const __m256i nibble = _mm256_set1_epi8(15);
  v_store(out, _mm256_and_si256(bytes, nibble));
  v_store(out + 32, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
}
/* Byte i of all words of four vectors, the low 128 bits of all of them first. */
BNN_INLINE void v_split_bytes(__m256i bytes[4], __m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i apart = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13,
                                         2, 6, 10, 14, 3, 7, 11, 15);
  a = _mm256_shuffle_epi8(a, apart), b = _mm256_shuffle_epi8(b, apart);
  c = _mm256_shuffle_epi8(c, apart), d = _mm256_shuffle_epi8(d, apart);
  __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
  bytes[0] = _mm256_unpacklo_epi64(ab, cd);
  bytes[1] = _mm256_unpackhi_epi64(ab, cd);
  ab = _mm256_unpackhi_epi32(a, b), cd = _mm256_unpackhi_epi32(c, d);
  bytes[2] = _mm256_unpacklo_epi64(ab, cd);
  bytes[3] = _mm256_unpackhi_epi64(ab, cd);
}
/* Of the words of 32 columns: nibble i of all of them is the vector of bytes at out + i * 32. In what order is undone
 * where bytes become words. */
BNN_INLINE void v_store_nibbles(uint8_t *out, const uint32_t *words) {
  __m256i bytes[4];
  v_split_bytes(bytes, v_load(words), v_load(words + 8), v_load(words + 16), v_load(words + 24));
  v_store_byte_nibbles(out, bytes[0]);
  v_store_byte_nibbles(out + 64, bytes[1]);
  v_store_byte_nibbles(out + 128, bytes[2]);
  v_store_byte_nibbles(out + 192, bytes[3]);
}

/* ---- floats ---------------------------------------------------------------------------------------------------- */

BNN_INLINE vf32 v_set_f32(float x) { return _mm256_set1_ps(x); }
BNN_INLINE vf32 v_load_f32(const float *p) { return _mm256_loadu_ps(p); }
BNN_INLINE vf32 v_load_part_f32(const float *p, int64_t n) { return _mm256_maskload_ps(p, v_first(n)); }
BNN_INLINE void v_store_f32(float *p, vf32 x) { _mm256_storeu_ps(p, x); }
BNN_INLINE void v_store_part_f32(float *p, vf32 x, int64_t n) { _mm256_maskstore_ps(p, v_first(n), x); }
BNN_INLINE vf32 v_add_f32(vf32 a, vf32 b) { return _mm256_add_ps(a, b); }
BNN_INLINE vf32 v_sub_f32(vf32 a, vf32 b) { return _mm256_sub_ps(a, b); }
BNN_INLINE vf32 v_mul_f32(vf32 a, vf32 b) { return _mm256_mul_ps(a, b); }
BNN_INLINE vf32 v_div_f32(vf32 a, vf32 b) { return _mm256_div_ps(a, b); }
BNN_INLINE vf32 v_fma_f32(vf32 a, vf32 b, vf32 c) { return _mm256_fmadd_ps(a, b, c); }
BNN_INLINE vf32 v_float(vu32 x) { return _mm256_cvtepi32_ps(x); }
BNN_INLINE vu32 v_load_i16(const int16_t *p) { return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p)); }
BNN_INLINE void v_store_i16(int16_t *p, vu32 x) {
  _mm_storeu_si128((__m128i *)p, _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}
BNN_INLINE vu32 v_bits_of(vf32 x) { return _mm256_castps_si256(x); }
BNN_INLINE vf32 v_as_float(vu32 x) { return _mm256_castsi256_ps(x); }

BNN_INLINE vf64 v_set_f64(double x) { return (vf64){_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
BNN_INLINE vf64 v_load_f64(const double *p) { return (vf64){_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
BNN_INLINE __m256i v_first_f64(int64_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
BNN_INLINE vf64 v_load_part_f64(const double *p, int64_t n) {
  return (vf64){_mm256_maskload_pd(p, v_first_f64(n)), _mm256_maskload_pd(p + 4, v_first_f64(n - 4))};
}
BNN_INLINE void v_store_f64(double *p, vf64 x) {
  _mm256_storeu_pd(p, x.low);
  _mm256_storeu_pd(p + 4, x.high);
}
BNN_INLINE void v_store_part_f64(double *p, vf64 x, int64_t n) {
  _mm256_maskstore_pd(p, v_first_f64(n), x.low);
  _mm256_maskstore_pd(p + 4, v_first_f64(n - 4), x.high);
}

/* ---- masks ----------------------------------------------------------------------------------------------------- */

BNN_INLINE vf32 v_absolute_f32(vf32 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
BNN_INLINE __m256d v_absolute_pd(__m256d x) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), x); }
BNN_INLINE vmask v_less_f32(vf32 a, vf32 b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
BNN_INLINE vmask v_within_f32(vf32 x, vf32 limit) {
  return _mm256_castps_si256(_mm256_cmp_ps(v_absolute_f32(x), limit, _CMP_LE_OQ));
}
BNN_INLINE vmask v_nan_f32(vf32 x) { return _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)); }

/* Two masks of four 64-bit lanes as one of eight. */
BNN_INLINE vmask v_join(__m256d low, __m256d high) {
  __m256 mixed = _mm256_shuffle_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high), 0x88);
  return _mm256_permute4x64_epi64(_mm256_castps_si256(mixed), 0xd8);
}
BNN_INLINE vmask v_less_f64(vf64 a, vf64 b) {
  return v_join(_mm256_cmp_pd(a.low, b.low, _CMP_LT_OQ), _mm256_cmp_pd(a.high, b.high, _CMP_LT_OQ));
}
BNN_INLINE vmask v_within_f64(vf64 x, vf64 limit) {
  return v_join(_mm256_cmp_pd(v_absolute_pd(x.low), limit.low, _CMP_LE_OQ),
                _mm256_cmp_pd(v_absolute_pd(x.high), limit.high, _CMP_LE_OQ));
}
BNN_INLINE vmask v_nan_f64(vf64 x) {
  return v_join(_mm256_cmp_pd(x.low, x.low, _CMP_UNORD_Q), _mm256_cmp_pd(x.high, x.high, _CMP_UNORD_Q));
}

BNN_INLINE vmask v_mask_none(void) { return _mm256_setzero_si256(); }
BNN_INLINE vmask v_mask_or(vmask a, vmask b) { return _mm256_or_si256(a, b); }
BNN_INLINE vmask v_mask_without(vmask a, vmask b) { return _mm256_andnot_si256(b, a); }
BNN_INLINE uint32_t v_mask_bits(vmask m) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m)); }
BNN_INLINE vmask v_test(vu32 x, vu32 bit) { return _mm256_cmpeq_epi32(_mm256_and_si256(x, bit), bit); }
BNN_INLINE vmask v_mask_of(uint32_t bits) {
  return v_test(v_set(bits), _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128));
}
BNN_INLINE vu32 v_or_where(vu32 x, vmask m, vu32 bit) { return _mm256_or_si256(x, _mm256_and_si256(m, bit)); }
BNN_INLINE vf32 v_choose_f32(vmask m, vf32 yes, vf32 no) { return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(m)); }
BNN_INLINE vf64 v_add_f64(vf64 a, vf64 b) { return (vf64){_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)}; }
BNN_INLINE vf64 v_choose_f64(vmask m, vf64 yes, vf64 no) {
  __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(m));
  __m256i high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(m, 1));
  return (vf64){_mm256_blendv_pd(no.low, yes.low, _mm256_castsi256_pd(low)),
                _mm256_blendv_pd(no.high, yes.high, _mm256_castsi256_pd(high))};
}

BNN_INLINE vu32 v_level_f32(vf32 x, vf32 levels) {
  vf32 inside = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(1)), _mm256_setzero_ps());
  return _mm256_cvtps_epi32(_mm256_mul_ps(inside, levels));
}
BNN_INLINE __m128i v_level_pd(__m256d x, __m256d levels) {
  __m256d inside = _mm256_max_pd(_mm256_min_pd(x, _mm256_set1_pd(1)), _mm256_setzero_pd());
  return _mm256_cvtpd_epi32(_mm256_mul_pd(inside, levels));
}
BNN_INLINE vu32 v_level_f64(vf64 x, vf64 levels) {
  return _mm256_set_m128i(v_level_pd(x.high, levels.high), v_level_pd(x.low, levels.low));
}

/* ---- register tables and bit transposes: the signed kernels ------------------------------------------------------ */

/* A register table holds the eight sums +-a +-b +-c + d of four floats. The other eight are these with all signs
 * turned. */
#define BNN_TABLE_VECTORS 1

typedef struct {
  __m256i entry;
  __m256 sign; /* +-1: multiplied where the sum is added, which is exact and takes no instruction */
} vchoice;

BNN_INLINE vf32 v_table_f32(float a, float b, float c, float d) {
  __m256 sum = _mm256_mul_ps(_mm256_set1_ps(a), _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1));
  sum = _mm256_fmadd_ps(_mm256_set1_ps(b), _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1), sum);
  sum = _mm256_fmadd_ps(_mm256_set1_ps(c), _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1), sum);
  return _mm256_add_ps(sum, _mm256_set1_ps(d));
}
/* Where the upper bit is set the other three are turned: the entry whose negative is meant. */
BNN_INLINE vu32 v_nibbles(vu32 words) {
  __m256i upper = _mm256_and_si256(words, _mm256_set1_epi32((int)0x88888888));
  return _mm256_xor_si256(words, _mm256_sub_epi32(upper, _mm256_srli_epi32(upper, 3)));
}
BNN_INLINE vu32 v_next_nibble(vu32 nibbles) { return _mm256_srli_epi32(nibbles, 4); }
BNN_INLINE vchoice v_choice(vu32 nibbles) {
  __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(nibbles, 28));
  return (vchoice){nibbles, _mm256_or_ps(_mm256_and_ps(upper, _mm256_set1_ps(-0.0f)), _mm256_set1_ps(1))};
}
BNN_INLINE vf32 v_hidden_one(void) { return v_set_f32(1); }
BNN_INLINE vf32 v_add_choice_f32(vf32 sum, vf32 table, vchoice choice, vf32 one, int multiply) {
  (void)one, (void)multiply; /* the choice has a factor of its own */
  return _mm256_fmadd_ps(_mm256_permutevar8x32_ps(table, choice.entry), choice.sign, sum);
}

BNN_INLINE vu32 v_load_halves(const uint32_t *low, const uint32_t *high) {
  return _mm256_loadu2_m128i((const __m128i *)high, (const __m128i *)low);
}
/* Bit j of 32 bytes to words[j]. */
BNN_INLINE void v_store_bits(uint32_t *words, __m256i bytes) {
  words[0] = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(bytes, 7));
  words[1] = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(bytes, 6));
  words[2] = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(bytes, 5));
  words[3] = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(bytes, 4));
  words[4] = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(bytes, 3));
  words[5] = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(bytes, 2));
  words[6] = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(bytes, 1));
  words[7] = (uint32_t)_mm256_movemask_epi8(bytes);
}
/* Of 32 words in place: bit j of word i becomes bit i of word j. */
BNN_INLINE void v_transpose_bits(uint32_t *words) {
  __m256i bytes[4]; /* [i] is byte i of every word */
  v_split_bytes(bytes, v_load_halves(words, words + 16), v_load_halves(words + 4, words + 20),
                v_load_halves(words + 8, words + 24), v_load_halves(words + 12, words + 28));
  v_store_bits(words, bytes[0]);
  v_store_bits(words + 8, bytes[1]);
  v_store_bits(words + 16, bytes[2]);
  v_store_bits(words + 24, bytes[3]);
}
/* Lane i of a, b, c and d to out[i * stride] .. [+ 3]. */
BNN_INLINE void v_store_halves_f32(float *out, int64_t stride, vf32 x) {
  _mm_storeu_ps(out, _mm256_castps256_ps128(x));
  _mm_storeu_ps(out + 4 * stride, _mm256_extractf128_ps(x, 1));
}
BNN_INLINE void v_store_turned_f32(float *out, int64_t stride, vf32 a, vf32 b, vf32 c, vf32 d) {
  __m256d ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b)), cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
  v_store_halves_f32(out, stride, _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)));
  v_store_halves_f32(out + stride, stride, _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
  ab = _mm256_castps_pd(_mm256_unpackhi_ps(a, b)), cd = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
  v_store_halves_f32(out + 2 * stride, stride, _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)));
  v_store_halves_f32(out + 3 * stride, stride, _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
}

/* ---- bytes and lanes out of order: the depthwise kernels -------------------------------------------------------- */

typedef __m256i vbytes;

BNN_INLINE vbytes v_no_bytes(void) { return _mm256_setzero_si256(); }
BNN_INLINE vbytes v_append_bits(vbytes x, uint32_t bits) {
  const __m256i source = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i digit = _mm256_set1_epi64x((long long)0x8040201008040201);
  __m256i spread = _mm256_and_si256(_mm256_shuffle_epi8(v_set(bits), source), digit);
  return _mm256_sub_epi8(_mm256_add_epi8(x, x), _mm256_cmpeq_epi8(spread, digit));
}
BNN_INLINE void v_store_bytes(uint8_t *p, vbytes x) { v_store(p, x); }
BNN_INLINE vu32 v_load_bytes(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
BNN_INLINE vf32 v_pick_f32(vf32 x, vu32 index) { return _mm256_permutevar8x32_ps(x, index); }

#endif
