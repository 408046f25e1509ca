/* Counting where the machine does it by itself: no narrow lanes, nothing to widen. */
#ifndef BNN_SIMD_AVX512VPOPCNT_H
#define BNN_SIMD_AVX512VPOPCNT_H

#define BNN_TILE_ROWS 3
#define BNN_CARRY_LEVELS 1
#define BNN_COUNT_ROOM 0 /* without limit */

BNN_INLINE vu32 v_count(vu32 x) { return _mm512_popcnt_epi32(x); }
BNN_INLINE vu32 v_add_counts(vu32 a, vu32 b) { return _mm512_add_epi32(a, b); }
BNN_INLINE vu32 v_widen_counts(vu32 x) { return x; }

#endif
