/* Counting where the machine does it by itself: no narrow lanes, nothing to widen. */
#ifndef BNN_SIMD_AVX512VPOPCNT_H
#define BNN_SIMD_AVX512VPOPCNT_H

#define BNN_TILE_ROWS 4
#define BNN_TILE_PANELS 4
#define BNN_COUNT_ROOM 0 /* without limit */
#ifndef BNN_CARRY_LEVELS
#define BNN_CARRY_LEVELS 1
#endif

BNN_INLINE vu32 v_count(vu32 x) { return _mm512_popcnt_epi32(x); }
BNN_INLINE vu32 v_add_counts(vu32 a, vu32 b) { return _mm512_add_epi32(a, b); }
BNN_INLINE vu32 v_widen_counts(vu32 x) { return x; }

#if BNN_CARRY_LEVELS == 1
/* Adds four words to a counter, those of a row where they are broadcast from and those of a vector of columns; the
 * carries of two pairs. A ternary operation overwrites one of its operands, and a compiler saves that in a copy, which
 * takes as long to fetch as an operation. Here a broadcast, which is a load, makes what is overwritten. */
#define BNN_ADD_FOUR 1

BNN_INLINE void v_add_four(const uint32_t *row, int64_t i, int64_t j, int64_t k, int64_t l, vu32 a, vu32 b, vu32 c,
                           vu32 d, vu32 *ones, vu32 *first, vu32 *second) {
  vu32 sum;
  __asm__(
      "vpbroadcastd (%[row],%[i],4), %[first]\n\t"
      "vpternlogd $0x96, %[a], %[ones], %[first]\n\t"
      "vpbroadcastd (%[row],%[j],4), %[sum]\n\t"
      "vpternlogd $0x96, %[b], %[first], %[sum]\n\t"
      "vpternlogd $0x3a, %[ones], %[sum], %[first]\n\t"
      "vpbroadcastd (%[row],%[k],4), %[second]\n\t"
      "vpternlogd $0x96, %[c], %[sum], %[second]\n\t"
      "vpbroadcastd (%[row],%[l],4), %[ones]\n\t"
      "vpternlogd $0x96, %[d], %[second], %[ones]\n\t"
      "vpternlogd $0x3a, %[sum], %[ones], %[second]"
      : [ones] "+&v"(*ones), [first] "=&v"(*first), [second] "=&v"(*second), [sum] "=&v"(sum)
      : [row] "r"(row), [i] "r"(i), [j] "r"(j), [k] "r"(k), [l] "r"(l), [a] "v"(a), [b] "v"(b), [c] "v"(c), [d] "v"(d),
        "m"(*(const uint32_t(*)[1 << 16]) row));
}
#endif

#endif
