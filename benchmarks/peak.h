/* How fast one core adds at most: the innermost step of a product without anything around it. Included by a source of
 * csrc/isa/ in place of the kernels, so the step is made of the primitives of that level. Both return multiply-adds. */

#ifndef BNN_CARRY_LEVELS
#define BNN_CARRY_LEVELS 1
#endif

#define EXPORT __attribute__((visibility("default")))
#define CELLS (BNN_TILE_ROWS * 2)
#define GROUP (BNN_CARRY_LEVELS > 1 ? 4 : 1) /* pairs of words that are counted together */
#define STEPS 8                              /* that read different words, all in the first cache */
#define WORDS (STEPS * CELLS * GROUP * 2 * BNN_LANES)

/* The carry of two words of combined bits and the sum bit of a counter. */
BNN_INLINE vu32 pair_carry(const uint32_t *right, const vu32 *left, vu32 *ones) {
  vu32 half = v_xor3(v_load(right), left[0], *ones), whole = v_xor3(v_load(right + BNN_LANES), left[1], half);
  vu32 carry = v_carry(half, whole, *ones);
  *ones = whole;
  return carry;
}

/* A group of pairs, as csrc/kernels/xnor.h counts it on this level. */
BNN_INLINE vu32 group_count(const uint32_t *right, const vu32 *left, vu32 *ones, vu32 *twos, vu32 *fours) {
#if BNN_CARRY_LEVELS == 0
  (void)ones, (void)twos, (void)fours;
  return v_add_counts(v_count(v_xor(v_load(right), left[0])), v_count(v_xor(v_load(right + BNN_LANES), left[1])));
#elif BNN_CARRY_LEVELS == 1
  (void)twos, (void)fours;
  return v_count(pair_carry(right, left, ones));
#else
  vu32 carry[2];
  for (int half = 0; half < 2; half++) {
    vu32 a = pair_carry(right + 4 * half * BNN_LANES, left, ones);
    vu32 b = pair_carry(right + (4 * half + 2) * BNN_LANES, left, ones);
    carry[half] = v_majority(a, b, *twos);
    *twos = v_xor3(*twos, a, b);
  }
  vu32 count = v_count(v_majority(carry[0], carry[1], *fours));
  *fours = v_xor3(*fours, carry[0], carry[1]);
  return count;
#endif
}

/* Counters in registers, each with a word of its own at every step. */
EXPORT int64_t peak_xnor(int64_t rounds) {
  static uint32_t words[WORDS], sink[BNN_LANES];
  for (int i = 0; i < WORDS; i++) words[i] = (uint32_t)i * 2654435761u;
  vu32 left[2] = {v_set(words[5]), v_set(words[7])}, ones[CELLS], twos[CELLS], fours[CELLS], count[CELLS];
  BNN_UNROLL
  for (int i = 0; i < CELLS; i++) ones[i] = twos[i] = fours[i] = count[i] = v_set(words[i]);
  for (int64_t round = 0; round < rounds; round++)
    for (const uint32_t *right = words; right < words + WORDS; right += WORDS / STEPS) {
      BNN_UNROLL
      for (int i = 0; i < CELLS; i++)
        count[i] =
            v_add_counts(count[i], group_count(right + i * GROUP * 2 * BNN_LANES, left, &ones[i], &twos[i], &fours[i]));
    }
  for (int i = 0; i < CELLS; i++)
    v_store(sink, v_add(v_load(sink), v_xor(v_xor3(ones[i], twos[i], fours[i]), count[i])));
  return rounds * WORDS * BNN_WORD;
}

#define SUMS 6 /* twice, which hides the latency */

EXPORT int64_t peak_fma(int64_t rounds) {
  static volatile float half = 0.5f;
  static float sink[BNN_LANES];
  vf32 factor = v_set_f32(half), even[SUMS], odd[SUMS];
  BNN_UNROLL
  for (int i = 0; i < SUMS; i++) even[i] = v_set_f32((float)i), odd[i] = v_set_f32((float)(i + SUMS));
  for (int64_t round = 0; round < rounds; round++) {
    BNN_UNROLL
    for (int i = 0; i < SUMS; i++)
      even[i] = v_fma_f32(even[i], factor, factor), odd[i] = v_fma_f32(odd[i], factor, factor);
  }
  for (int i = 0; i < SUMS; i++) v_store_f32(sink, v_add_f32(v_load_f32(sink), v_add_f32(even[i], odd[i])));
  return rounds * 2 * SUMS * BNN_LANES;
}
