/* How fast one core adds at most: the innermost step of a product without anything around it. Included by a source of
 * csrc/isa/ in place of the kernels, so the step is made of the primitives of that level. Both return multiply-adds. */

#define EXPORT __attribute__((visibility("default")))
#define CELLS (2 * BNN_TILE_ROWS)
#define STEPS 8 /* that read different words, all in the first cache */

/* The carry-save step of csrc/kernels/xnor.h: two words of bits into one counter. */
EXPORT int64_t peak_xnor(int64_t rounds) {
  static uint32_t words[STEPS * CELLS * 2 * BNN_LANES], sink[BNN_LANES];
  for (int i = 0; i < STEPS * CELLS * 2 * BNN_LANES; i++) words[i] = (uint32_t)i * 2654435761u;
  vu32 left[2] = {v_set(words[5]), v_set(words[7])}, ones[CELLS], count[CELLS];
  BNN_UNROLL
  for (int i = 0; i < CELLS; i++) ones[i] = v_set(words[i]), count[i] = v_set(0);
  for (int64_t round = 0; round < rounds; round++)
    for (const uint32_t *right = words; right < words + STEPS * CELLS * 2 * BNN_LANES; right += CELLS * 2 * BNN_LANES) {
      BNN_UNROLL
      for (int i = 0; i < CELLS; i++) {
        vu32 half = v_xor3(v_load(right + 2 * i * BNN_LANES), left[0], ones[i]);
        vu32 whole = v_xor3(v_load(right + (2 * i + 1) * BNN_LANES), left[1], half);
        count[i] = v_add_counts(count[i], v_count(v_carry(half, whole, ones[i])));
        ones[i] = whole;
      }
    }
  for (int i = 0; i < CELLS; i++) v_store(sink, v_add(v_load(sink), v_xor(ones[i], count[i])));
  return rounds * STEPS * CELLS * 2 * BNN_LANES * BNN_WORD;
}

#define SUMS 6 /* twice, which hides the latency */

EXPORT int64_t peak_fma(int64_t rounds) {
  static float values[2 * SUMS], sink[BNN_LANES];
  vf32 factor = v_set_f32(values[0]), even[SUMS], odd[SUMS];
  BNN_UNROLL
  for (int i = 0; i < SUMS; i++) even[i] = v_set_f32(values[i]), odd[i] = v_set_f32(values[i + SUMS]);
  for (int64_t round = 0; round < rounds; round++) {
    BNN_UNROLL
    for (int i = 0; i < SUMS; i++)
      even[i] = v_fma_f32(even[i], factor, factor), odd[i] = v_fma_f32(odd[i], factor, factor);
  }
  for (int i = 0; i < SUMS; i++) v_store_f32(sink, v_add_f32(v_load_f32(sink), v_add_f32(even[i], odd[i])));
  return rounds * 2 * SUMS * BNN_LANES;
}
