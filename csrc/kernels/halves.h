/* Integers of 16 bits: what a product of bits comes to, where what reads it knows them. */

/* As many of the lanes as there are, none if that is not positive; each fits. */
BNN_INLINE void store_halves(int16_t *to, vu32 x, int64_t here) {
  int16_t lane[BNN_LANES];
  if (here >= BNN_LANES) {
    v_store_i16(to, x);
  } else if (here > 0) {
    v_store_i16(lane, x);
    __builtin_memcpy(to, lane, (size_t)here * sizeof *to);
  }
}

BNN_INLINE vu32 load_halves(const int16_t *from, int64_t here) {
  int16_t lane[BNN_LANES] = {0};
  if (here >= BNN_LANES) return v_load_i16(from);
  if (here > 0) __builtin_memcpy(lane, from, (size_t)here * sizeof *from);
  return v_load_i16(lane);
}
