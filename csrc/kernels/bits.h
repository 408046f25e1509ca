/* Floats to bits and back. Included once per REAL; VREAL is a vector of BNN_LANES of them.
 *
 * The packed axis is either contiguous (inner == 1), and a word is put together from vector compares, or strided, and
 * the lanes of a vector are neighbouring vectors whose words grow by one bit per row. */

/* One contiguous row; returns the lanes where a NaN was met. */
BNN_INLINE vmask OF(pack_row)(const REAL *x, int64_t count, int masked, VREAL limit, uint32_t *words, uint32_t *mask) {
  vmask nan = v_mask_none();
  int64_t w = 0;
  for (; (w + 1) * BNN_WORD <= count; w++) {
    uint32_t sign = 0, within = 0;
    for (int lane = 0; lane < BNN_WORD; lane += BNN_LANES) {
      VREAL value = OF(v_load)(x + w * BNN_WORD + lane);
      sign |= v_mask_bits(OF(v_negative)(value)) << lane;
      if (masked) within |= v_mask_bits(OF(v_within)(value, limit)) << lane;
      nan = v_mask_or(nan, OF(v_nan)(value));
    }
    words[w] = sign;
    if (masked) mask[w] = within;
  }
  int64_t rest = count - w * BNN_WORD;
  if (rest) {
    uint32_t sign = 0, within = 0;
    for (int lane = 0; lane < rest; lane += BNN_LANES) {
      VREAL value = OF(v_load_part)(x + w * BNN_WORD + lane, rest - lane);
      sign |= v_mask_bits(OF(v_negative)(value)) << lane;
      if (masked) within |= v_mask_bits(OF(v_within)(value, limit)) << lane;
      nan = v_mask_or(nan, OF(v_nan)(value));
    }
    words[w] = sign;
    if (masked) mask[w] = within & ((1u << rest) - 1);
  }
  return nan;
}

/* One word of `here` neighbouring vectors from up to BNN_WORD rows that lie `inner` apart: `registers` full of lanes,
 * or one in part. */
BNN_INLINE vmask OF(pack_word)(int registers, const REAL *x, int64_t rows, int64_t inner, int64_t here, int masked,
                               VREAL limit, uint32_t *word, uint32_t *mask) {
  vmask nan = v_mask_none();
  vu32 sign[STRIP_REGISTERS], within[STRIP_REGISTERS];
  BNN_UNROLL
  for (int r = 0; r < registers; r++) sign[r] = within[r] = v_set(0);
  for (int64_t k = 0; k < rows; k++, x += inner) {
    vu32 bit = v_set(1u << k);
    BNN_UNROLL
    for (int r = 0; r < registers; r++) {
      VREAL value = here >= BNN_LANES ? OF(v_load)(x + r * BNN_LANES) : OF(v_load_part)(x, here);
      sign[r] = v_or_where(sign[r], OF(v_negative)(value), bit);
      if (masked) within[r] = v_or_where(within[r], OF(v_within)(value, limit), bit);
      nan = v_mask_or(nan, OF(v_nan)(value));
    }
  }
  BNN_UNROLL
  for (int r = 0; r < registers; r++) {
    v_store(word + r * BNN_LANES, sign[r]);
    if (masked) v_store(mask + r * BNN_LANES, within[r]);
  }
  return nan;
}

/* `lanes` neighbouring vectors of `count` elements that lie `inner` apart. */
BNN_INLINE vmask OF(pack_lanes)(const REAL *x, int64_t count, int64_t inner, int64_t lanes, int masked, VREAL limit,
                                uint32_t *words, uint32_t *mask) {
  vmask nan = v_mask_none();
  int64_t length = bnn_words(count);
  for (int64_t first = 0; first < length; first += STRIP_WORDS)
    for (int64_t j = 0; j < lanes; j += STRIP_LANES) {
      uint32_t signs[STRIP_WORDS][STRIP_LANES], masks[STRIP_WORDS][STRIP_LANES];
      int64_t strip = length - first < STRIP_WORDS ? length - first : STRIP_WORDS;
      int64_t here = lanes - j < STRIP_LANES ? lanes - j : STRIP_LANES;
      for (int64_t w = 0; w < strip; w++) {
        int64_t row = (first + w) * BNN_WORD, rows = count - row < BNN_WORD ? count - row : BNN_WORD;
        const REAL *from = x + row * inner + j;
        int64_t i = 0;
        for (; i + STRIP_REGISTERS * BNN_LANES <= here; i += STRIP_REGISTERS * BNN_LANES)
          nan = v_mask_or(nan, OF(pack_word)(STRIP_REGISTERS, from + i, rows, inner, BNN_LANES, masked, limit,
                                             signs[w] + i, masks[w] + i));
        for (; i < here; i += BNN_LANES)
          nan = v_mask_or(nan,
                          OF(pack_word)(1, from + i, rows, inner, here - i, masked, limit, signs[w] + i, masks[w] + i));
      }
      strip_out(signs, here, strip, words + j * length + first, length);
      if (masked) strip_out(masks, here, strip, mask + j * length + first, length);
    }
  return nan;
}

BNN_INLINE int OF(pack_range)(const bnn_pack *pack, int64_t begin, int64_t end, int masked) {
  const REAL *x = pack->x;
  int64_t count = pack->count, inner = pack->inner, length = bnn_words(count);
  VREAL limit = OF(v_set)((REAL)pack->clip);
  vmask nan = v_mask_none();
  if (inner == 1 && count % BNN_WORD == 0)
    nan = OF(pack_row)(x + begin * count, (end - begin) * count, masked, limit, pack->words + begin * length,
                       masked ? pack->mask + begin * length : NULL);
  else if (inner == 1)
    for (int64_t i = begin; i < end; i++)
      nan = v_mask_or(nan, OF(pack_row)(x + i * count, count, masked, limit, pack->words + i * length,
                                        masked ? pack->mask + i * length : NULL));
  else
    for (int64_t i = begin, lanes; i < end; i += lanes) {
      int64_t outer = i / inner, first = i % inner;
      lanes = inner - first < end - i ? inner - first : end - i;
      nan = v_mask_or(nan, OF(pack_lanes)(x + outer * count * inner + first, count, inner, lanes, masked, limit,
                                          pack->words + i * length, masked ? pack->mask + i * length : NULL));
    }
  return v_mask_bits(nan) != 0;
}

static int OF(pack)(const bnn_pack *pack, int64_t begin, int64_t end) {
  return pack->mask ? OF(pack_range)(pack, begin, end, 1) : OF(pack_range)(pack, begin, end, 0);
}

/* A set bit chooses -1, or dy; a clear one +1, or 0. */
BNN_INLINE void OF(unpack_row)(const uint32_t *words, const REAL *dy, int64_t count, REAL *out) {
  VREAL yes = OF(v_set)(-1), no = OF(v_set)(dy ? 0 : 1);
  for (int64_t i = 0; i < count; i += BNN_LANES) {
    vmask bits = v_mask_of(words[i / BNN_WORD] >> i % BNN_WORD);
    if (count - i >= BNN_LANES) {
      if (dy) yes = OF(v_load)(dy + i);
      OF(v_store)(out + i, OF(v_choose)(bits, yes, no));
    } else {
      if (dy) yes = OF(v_load_part)(dy + i, count - i);
      OF(v_store_part)(out + i, OF(v_choose)(bits, yes, no), count - i);
    }
  }
}

BNN_INLINE void OF(unpack_lanes)(const uint32_t *words, const REAL *dy, int64_t count, int64_t inner, int64_t lanes,
                                 REAL *out) {
  VREAL yes = OF(v_set)(-1), no = OF(v_set)(dy ? 0 : 1);
  int64_t length = bnn_words(count);
  for (int64_t first = 0; first < length; first += STRIP_WORDS)
    for (int64_t j = 0; j < lanes; j += STRIP_LANES) {
      uint32_t bits[STRIP_WORDS][STRIP_LANES];
      int64_t strip = length - first < STRIP_WORDS ? length - first : STRIP_WORDS;
      int64_t here = lanes - j < STRIP_LANES ? lanes - j : STRIP_LANES;
      strip_in(words + j * length + first, length, here, strip, bits);
      int64_t end = first * BNN_WORD + strip * BNN_WORD < count ? first * BNN_WORD + strip * BNN_WORD : count;
      for (int64_t row = first * BNN_WORD; row < end; row++) {
        const uint32_t *word = bits[row / BNN_WORD - first];
        vu32 bit = v_set(1u << row % BNN_WORD);
        int64_t lane = 0, at = row * inner + j;
        for (; lane + BNN_LANES <= here; lane += BNN_LANES) {
          if (dy) yes = OF(v_load)(dy + at + lane);
          OF(v_store)(out + at + lane, OF(v_choose)(v_test(v_load(word + lane), bit), yes, no));
        }
        if (lane < here) {
          if (dy) yes = OF(v_load_part)(dy + at + lane, here - lane);
          OF(v_store_part)(out + at + lane, OF(v_choose)(v_test(v_load(word + lane), bit), yes, no), here - lane);
        }
      }
    }
}

static void OF(unpack)(const bnn_unpack *unpack, int64_t begin, int64_t end) {
  const REAL *dy = unpack->dy;
  REAL *out = unpack->out;
  int64_t count = unpack->count, inner = unpack->inner, length = bnn_words(count);
  if (inner == 1 && count % BNN_WORD == 0) OF(unpack_row)
  (unpack->words + begin * length, dy ? dy + begin * count : NULL, (end - begin) * count, out + begin * count);
  else if (inner == 1) for (int64_t i = begin; i < end; i++)
      OF(unpack_row)(unpack->words + i * length, dy ? dy + i * count : NULL, count, out + i * count);
  else for (int64_t i = begin, lanes; i < end; i += lanes) {
    int64_t at = i / inner * count * inner + i % inner;
    lanes = inner - i % inner < end - i ? inner - i % inner : end - i;
    OF(unpack_lanes)(unpack->words + i * length, dy ? dy + at : NULL, count, inner, lanes, out + at);
  }
}
