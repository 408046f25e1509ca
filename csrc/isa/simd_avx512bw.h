/* Counting without VPOPCNTDQ: of bytes, by a table of nibbles. */
#ifndef BNN_SIMD_AVX512BW_H
#define BNN_SIMD_AVX512BW_H

#define BNN_TILE_ROWS 2
#define BNN_CARRY_LEVELS 3
#define BNN_COUNT_ROOM 31

BNN_INLINE vu32 v_count(vu32 x) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(x, nibble));
  __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble));
  return _mm512_add_epi8(low, high);
}
BNN_INLINE vu32 v_add_counts(vu32 a, vu32 b) { return _mm512_add_epi8(a, b); }
BNN_INLINE vu32 v_widen_counts(vu32 x) {
  return _mm512_madd_epi16(_mm512_maddubs_epi16(x, _mm512_set1_epi8(1)), _mm512_set1_epi16(1));
}

/* Bit by bit, what two or three of them are: the carry of a full adder. */
BNN_INLINE vu32 v_majority(vu32 a, vu32 b, vu32 c) { return _mm512_ternarylogic_epi32(a, b, c, 0xe8); }

#endif
