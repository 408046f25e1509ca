/* Floats to bits and back. Included once per REAL; VREAL is a vector of BNN_LANES of them.
 *
 * The packed axis is either contiguous (inner == 1), and a word is put together from vector compares, or strided, and
 * the lanes of a vector are neighbouring vectors whose words grow by one bit per row. */

/* What values are compared with. */
typedef struct {
  VREAL zero, clip, parameter, minus; /* minus the parameter */
} OF(pack_limits);

/* The planes of a vector of values, but those of levels; `packing` is a literal wherever this is inlined. */
BNN_INLINE void OF(pack_masks)(bnn_packing packing, VREAL x, const OF(pack_limits) * limits, vmask *plane) {
  if (packing == BNN_PACK_UNIT) {
    plane[0] = OF(v_less)(limits->zero, x);
  } else {
    plane[0] = OF(v_less)(x, limits->zero);
  }
  if (packing == BNN_PACK_TERNARY) {
    plane[0] = v_mask_without(plane[0], OF(v_less)(limits->minus, x));
    plane[1] = v_mask_without(OF(v_less)(limits->zero, x), OF(v_less)(x, limits->parameter));
    plane[1] = v_mask_or(plane[0], plane[1]);
  }
}

BNN_INLINE vmask OF(pack_within)(bnn_packing packing, VREAL x, const OF(pack_limits) * limits) {
  vmask within = OF(v_within)(x, limits->clip);
  return packing == BNN_PACK_LEVELS ? v_mask_without(within, OF(v_less)(x, limits->zero)) : within;
}

/* The word of each plane and of the mask for `count` neighbouring values, at most BNN_WORD of them; returns the lanes
 * where a NaN was met. */
BNN_INLINE vmask OF(pack_word)(bnn_packing packing, int planes, int masked, const REAL *x, int64_t count,
                               const OF(pack_limits) * limits, uint32_t *words, int64_t stride, uint32_t *mask) {
  vmask nan = v_mask_none(), plane[2];
  vu32 level[BNN_WORD / BNN_LANES];
  uint32_t word[2] = {0}, within = 0;
  for (int v = 0; v < BNN_WORD / BNN_LANES; v++) level[v] = v_set(0);
  for (int lane = 0; lane < count; lane += BNN_LANES) {
    VREAL value = count == BNN_WORD ? OF(v_load)(x + lane) : OF(v_load_part)(x + lane, count - lane);
    if (packing == BNN_PACK_LEVELS) {
      level[lane / BNN_LANES] = OF(v_level)(value, limits->parameter);
    } else {
      OF(pack_masks)(packing, value, limits, plane);
      for (int p = 0; p < planes; p++) word[p] |= v_mask_bits(plane[p]) << lane;
    }
    if (masked) within |= v_mask_bits(OF(pack_within)(packing, value, limits)) << lane;
    nan = v_mask_or(nan, OF(v_nan)(value));
  }
  for (int p = 0; p < planes; p++) {
    uint32_t bits = packing == BNN_PACK_LEVELS ? 0 : word[p];
    for (int lane = 0; lane < count && packing == BNN_PACK_LEVELS; lane += BNN_LANES)
      bits |= v_mask_bits(v_test(level[lane / BNN_LANES], v_set(1u << p))) << lane;
    words[p * stride] = bits;
  }
  if (masked) *mask = count == BNN_WORD ? within : within & ((1u << count) - 1);
  return nan;
}

/* Word `w` of a contiguous row. */
BNN_INLINE vmask OF(pack_at)(bnn_packing packing, int planes, int masked, const REAL *x, int64_t w, int64_t count,
                             const OF(pack_limits) * limits, uint32_t *words, int64_t stride, uint32_t *mask) {
  return OF(pack_word)(packing, planes, masked, x + w * BNN_WORD, count, limits, words + w, stride,
                       masked ? mask + w : NULL);
}

/* One contiguous row. What limits a long one is how many lines of memory are on their way at a time: several pages are
 * read side by side, and those that follow are asked for. */
BNN_INLINE vmask OF(pack_row)(bnn_packing packing, int planes, int masked, const REAL *x, int64_t count,
                              const OF(pack_limits) * limits, uint32_t *words, int64_t stride, uint32_t *mask) {
  enum { PAGE = PACK_PAGE / (BNN_WORD * sizeof(REAL)), BLOCK = PACK_PAGES * PAGE };
  vmask nan = v_mask_none();
  int64_t w = 0, rest = count % BNN_WORD;
  for (; w + BLOCK <= count / BNN_WORD; w += BLOCK)
    for (int64_t i = w; i < w + PAGE; i++)
      for (int64_t at = i; at < i + BLOCK; at += PAGE) {
        fetch_ahead(x + (at + BLOCK) * BNN_WORD, BNN_WORD * sizeof(REAL));
        nan = v_mask_or(nan, OF(pack_at)(packing, planes, masked, x, at, BNN_WORD, limits, words, stride, mask));
      }
  for (; w < count / BNN_WORD; w++)
    nan = v_mask_or(nan, OF(pack_at)(packing, planes, masked, x, w, BNN_WORD, limits, words, stride, mask));
  if (rest) nan = v_mask_or(nan, OF(pack_at)(packing, planes, masked, x, w, rest, limits, words, stride, mask));
  return nan;
}

/* The bits from `row` on of one word of each plane of `here` neighbouring vectors, from `rows` rows that lie `inner`
 * apart: `registers` full of lanes, or one in part. The rows that follow, `ahead` of these, are asked for. The words of
 * the planes are `stride` lines of a strip apart. */
BNN_INLINE vmask OF(pack_strip)(bnn_packing packing, int planes, int masked, int registers, const REAL *x, int64_t row,
                                int64_t rows, int64_t ahead, int64_t inner, int64_t here,
                                const OF(pack_limits) * limits, uint32_t *word, int64_t stride, uint32_t *mask) {
  vmask nan = v_mask_none(), plane[2];
  vu32 bits[2][STRIP_REGISTERS], within[STRIP_REGISTERS], level[BNN_WORD][STRIP_REGISTERS];
  BNN_UNROLL
  for (int r = 0; r < registers; r++) bits[0][r] = bits[1][r] = within[r] = v_set(0);
  for (int64_t k = 0; k < rows; k++, x += inner) {
    vu32 bit = v_set(UINT32_C(1) << (row + k));
    if (registers > 1) fetch_ahead(x + ahead * inner, (size_t)(registers * BNN_LANES) * sizeof(REAL));
    BNN_UNROLL
    for (int r = 0; r < registers; r++) {
      VREAL value = here >= BNN_LANES ? OF(v_load)(x + r * BNN_LANES) : OF(v_load_part)(x, here);
      if (packing == BNN_PACK_LEVELS) {
        level[k][r] = OF(v_level)(value, limits->parameter);
      } else {
        OF(pack_masks)(packing, value, limits, plane);
        for (int p = 0; p < planes; p++) bits[p][r] = v_or_where(bits[p][r], plane[p], bit);
      }
      if (masked) within[r] = v_or_where(within[r], OF(pack_within)(packing, value, limits), bit);
      nan = v_mask_or(nan, OF(v_nan)(value));
    }
  }
  for (int p = 0; p < planes; p++, word += stride * STRIP_LANES) {
    BNN_UNROLL
    for (int r = 0; r < registers; r++) {
      vu32 all = packing == BNN_PACK_LEVELS ? v_set(0) : bits[p][r];
      for (int64_t k = 0; k < rows && packing == BNN_PACK_LEVELS; k++)
        all = v_or_where(all, v_test(level[k][r], v_set(1u << p)), v_set(UINT32_C(1) << (row + k)));
      v_store(word + r * BNN_LANES, row ? v_xor(v_load(word + r * BNN_LANES), all) : all);
    }
  }
  BNN_UNROLL
  for (int r = 0; r < registers && masked; r++)
    v_store(mask + r * BNN_LANES, row ? v_xor(v_load(mask + r * BNN_LANES), within[r]) : within[r]);
  return nan;
}

/* `lanes` neighbouring vectors of `count` elements that lie `inner` apart. */
BNN_INLINE vmask OF(pack_lanes)(bnn_packing packing, int planes, int masked, const REAL *x, int64_t count,
                                int64_t inner, int64_t lanes, const OF(pack_limits) * limits, uint32_t *words,
                                int64_t stride, uint32_t *mask) {
  vmask nan = v_mask_none();
  int64_t length = bnn_words(count), most = STRIP_WORDS / planes; /* all planes share a strip */
  for (int64_t first = 0; first < length; first += most)
    for (int64_t j = 0; j < lanes; j += STRIP_LANES) {
      uint32_t bits[STRIP_WORDS][STRIP_LANES], masks[STRIP_WORDS][STRIP_LANES];
      int64_t strip = length - first < most ? length - first : most;
      int64_t here = lanes - j < STRIP_LANES ? lanes - j : STRIP_LANES;
      /* Long rows arrive sooner a few at a time; of short ones all make a word without its being kept in between. */
      const int64_t side = here < STRIP_LONG ? BNN_WORD : STRIP_ROWS;
      for (int64_t w = 0; w < strip; w++) {
        const int64_t all = bnn_least(count - (first + w) * BNN_WORD, BNN_WORD);
        for (int64_t row = 0, i; row < all; row += side) {
          const REAL *from = x + ((first + w) * BNN_WORD + row) * inner + j;
          const int64_t rows = bnn_least(all - row, side);
          for (i = 0; i + STRIP_REGISTERS * BNN_LANES <= here; i += STRIP_REGISTERS * BNN_LANES)
            nan = v_mask_or(nan, OF(pack_strip)(packing, planes, masked, STRIP_REGISTERS, from + i, row, rows, side,
                                                inner, BNN_LANES, limits, bits[w] + i, most, masks[w] + i));
          for (; i < here; i += BNN_LANES)
            nan = v_mask_or(nan, OF(pack_strip)(packing, planes, masked, 1, from + i, row, rows, side, inner, here - i,
                                                limits, bits[w] + i, most, masks[w] + i));
        }
      }
      for (int p = 0; p < planes; p++)
        strip_out(bits + p * most, here, strip, words + p * stride + j * length + first, length);
      if (masked) strip_out(masks, here, strip, mask + j * length + first, length);
    }
  return nan;
}

BNN_INLINE int OF(pack_range)(bnn_packing packing, int planes, const bnn_pack *pack, int64_t begin, int64_t end) {
  const REAL *x = pack->x;
  const int masked = pack->mask != NULL;
  int64_t count = pack->count, inner = pack->inner, length = bnn_words(count), stride = pack->outer * inner * length;
  const OF(pack_limits) limits = {OF(v_set)(0), OF(v_set)((REAL)pack->clip), OF(v_set)((REAL)pack->parameter),
                                  OF(v_set)((REAL)-pack->parameter)};
  vmask nan = v_mask_none();
  if (inner == 1 && count > 0 && count < BNN_WORD) {
    for (int64_t i = begin; i < end; i++)
      nan = v_mask_or(nan, OF(pack_word)(packing, planes, masked, x + i * count, count, &limits, pack->words + i,
                                         stride, masked ? pack->mask + i : NULL));
    return v_mask_bits(nan) != 0;
  }
  if (inner == 1) {
    /* Rows without a tail are one row. */
    int64_t rows = count % BNN_WORD ? end - begin : 1, width = count % BNN_WORD ? count : (end - begin) * count;
    for (int64_t i = 0; i < rows; i++) {
      int64_t at = begin * length + i * bnn_words(width);
      nan = v_mask_or(nan, OF(pack_row)(packing, planes, masked, x + begin * count + i * width, width, &limits,
                                        pack->words + at, stride, masked ? pack->mask + at : NULL));
    }
    return v_mask_bits(nan) != 0;
  }
  for (int64_t i = begin, lanes; i < end; i += lanes) {
    int64_t outer = i / inner, first = i % inner;
    lanes = inner - first < end - i ? inner - first : end - i;
    nan = v_mask_or(
        nan, OF(pack_lanes)(packing, planes, masked, x + outer * count * inner + first, count, inner, lanes, &limits,
                            pack->words + i * length, stride, masked ? pack->mask + i * length : NULL));
  }
  return v_mask_bits(nan) != 0;
}

static int OF(pack)(const bnn_pack *pack, int64_t begin, int64_t end) {
  switch (pack->packing) {
    case BNN_PACK_SIGN:
      return OF(pack_range)(BNN_PACK_SIGN, 1, pack, begin, end);
    case BNN_PACK_UNIT:
      return OF(pack_range)(BNN_PACK_UNIT, 1, pack, begin, end);
    case BNN_PACK_TERNARY:
      return OF(pack_range)(BNN_PACK_TERNARY, 2, pack, begin, end);
    default:
      return OF(pack_range)(BNN_PACK_LEVELS, pack->planes, pack, begin, end);
  }
}

/* A set bit chooses -1, or dy; a clear one +1, or 0. */
BNN_INLINE void OF(unpack_vector)(vmask bits, int whole, const REAL *dy, int64_t n, int add, REAL *out) {
  VREAL yes = OF(v_set)(-1), no = OF(v_set)(dy ? 0 : 1);
  if (dy) yes = whole ? OF(v_load)(dy) : OF(v_load_part)(dy, n);
  VREAL x = OF(v_choose)(bits, yes, no);
  if (dy) fetch_ahead(dy + FETCH_AHEAD, 1);
  fetch_to_write(out + (add ? FETCH_AHEAD : 2 * FETCH_AHEAD), 1);
  if (add) x = OF(v_add)(whole ? OF(v_load)(out) : OF(v_load_part)(out, n), x);
  if (whole)
    OF(v_store)(out, x);
  else
    OF(v_store_part)(out, x, n);
}

BNN_INLINE void OF(unpack_row)(const uint32_t *words, const REAL *dy, int64_t count, int add, REAL *out) {
  for (int64_t i = 0; i < count; i += BNN_LANES) {
    vmask bits = v_mask_of(words[i / BNN_WORD] >> i % BNN_WORD);
    if (count - i >= BNN_LANES)
      OF(unpack_vector)(bits, 1, dy ? dy + i : NULL, BNN_LANES, add, out + i);
    else
      OF(unpack_vector)(bits, 0, dy ? dy + i : NULL, count - i, add, out + i);
  }
}

BNN_INLINE void OF(unpack_lanes)(const uint32_t *words, const REAL *dy, int64_t count, int64_t inner, int64_t lanes,
                                 int add, REAL *out) {
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
        for (; lane + BNN_LANES <= here; lane += BNN_LANES) OF(unpack_vector)
        (v_test(v_load(word + lane), bit), 1, dy ? dy + at + lane : NULL, BNN_LANES, add, out + at + lane);
        if (lane < here) OF(unpack_vector)
        (v_test(v_load(word + lane), bit), 0, dy ? dy + at + lane : NULL, here - lane, add, out + at + lane);
      }
    }
}

static void OF(unpack)(const bnn_unpack *unpack, int64_t begin, int64_t end) {
  const REAL *dy = unpack->dy;
  REAL *out = unpack->out;
  int64_t count = unpack->count, inner = unpack->inner, length = bnn_words(count);
  if (inner == 1 && count % BNN_WORD == 0) OF(unpack_row)
  (unpack->words + begin * length, dy ? dy + begin * count : NULL, (end - begin) * count, unpack->add,
   out + begin * count);
  else if (inner == 1) for (int64_t i = begin; i < end; i++)
      OF(unpack_row)(unpack->words + i * length, dy ? dy + i * count : NULL, count, unpack->add, out + i * count);
  else for (int64_t i = begin, lanes; i < end; i += lanes) {
    int64_t at = i / inner * count * inner + i % inner;
    lanes = inner - i % inner < end - i ? inner - i % inner : end - i;
    OF(unpack_lanes)(unpack->words + i * length, dy ? dy + at : NULL, count, inner, lanes, unpack->add, out + at);
  }
}
