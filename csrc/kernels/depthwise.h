/* Depthwise convolution: channel c gives the outputs c * columns .. + columns - 1 of a pixel, and only taps are summed.
 * To a product its groups are the channels and its depth is one. Backwards, from outputs to channels, the depth is the
 * multiplier and the columns are one.
 *
 * So nothing is reduced across lanes: they are neighbouring channels of neighbouring pixels. Positions are visited
 * image by image, in runs of one class that a constant step leads through.
 */

#define DEPTHWISE_COUNT 255   /* the largest count: a byte */
#define DEPTHWISE_PLANES 8    /* of a count */
#define DEPTHWISE_RUN 64      /* most positions of a run of floats: what they read stays in the first cache */
#define DEPTHWISE_STAGED 2048 /* most positions staged for a run, if that is not less than the taps */
#define DEPTHWISE_WIDTH (2 * BNN_LANES)
#define DEPTHWISE_ROWS 4      /* positions of a tile */
#define DEPTHWISE_TILE_TAPS 3 /* taps of a tile of the kernel gradient */

/* ---- bits x bits ----------------------------------------------------------------------------------------------- */

/* What a tap and a pair of planes add, word by word: bits of signs, and of what is not zero. An operand whose kind has
 * no such bits, and a padded tap, read a vector of zeros or ones: they do not follow the position. */
typedef struct {
  const uint32_t *x, *w, *x_mask, *w_mask;
  int64_t follow, mask_follow; /* -1 or 0 */
} depthwise_item;

/* A result is start + factor * count: where all is signs, of the items that differ; else a count of 1 + value, value
 * being -1, 0 or 1, each times a power of two. */
typedef struct {
  depthwise_item *item;
  int64_t end[DEPTHWISE_PLANES]; /* of the items that count 2^i times */
  int total;                     /* the largest count: a byte */
  int signs;                     /* whether all is signs, and counts once */
  int32_t start, factor;
  int add;   /* to the integers that `out` holds */
  int whole; /* whether nothing is left to add */
  bnn_type type;
  float divisor;
  int64_t stride; /* from the result of a channel to the next */
} depthwise_count;

/* One more bit in every column of the counters: planes are the digits of their LANES * 32 counts. */
BNN_INLINE void depthwise_increment(const int first, const int planes, vu32 *plane, vu32 carry) {
  BNN_UNROLL
  for (int k = first; k < planes; k++) {
    vu32 both = v_and(plane[k], carry);
    plane[k] = v_xor(plane[k], carry);
    carry = both;
  }
}

BNN_INLINE vu32 depthwise_words(const int full, const uint32_t *words, int64_t left) {
  return full ? v_load(words) : v_load_part(words, left);
}

/* Digits of the counts, from word `at` on; `left` words are left in the run. */
BNN_INLINE void depthwise_digits(const int signs, const int planes, const int full, const depthwise_count *count,
                                 int64_t at, int64_t phase, int64_t left, uint32_t kept[][BNN_LANES]) {
  vu32 plane[DEPTHWISE_PLANES];
  BNN_UNROLL
  for (int k = 0; k < planes; k++) plane[k] = v_set(0);
  const depthwise_item *item = count->item;
  if (signs) {
    const depthwise_item *end = item + count->end[0];
    for (; end - item >= 2; item += 2) {
      vu32 a = depthwise_words(full, item[0].x + (at & item[0].follow), left);
      vu32 b = depthwise_words(full, item[1].x + (at & item[1].follow), left);
      vu32 half = v_xor3(plane[0], a, v_load(item[0].w + phase));
      vu32 whole = v_xor3(half, b, v_load(item[1].w + phase));
      depthwise_increment(1, planes, plane, v_carry(half, whole, plane[0]));
      plane[0] = whole;
    }
    if (item < end) {
      vu32 a = depthwise_words(full, item->x + (at & item->follow), left);
      depthwise_increment(0, planes, plane, v_xor(a, v_load(item->w + phase)));
    }
  } else {
    const vu32 ones = v_set(~0u);
    BNN_UNROLL
    for (int k = 0; k < planes - 1; k++)
      for (; item < count->item + count->end[k]; item++) {
        vu32 x = depthwise_words(full, item->x + (at & item->follow), left);
        vu32 mask = depthwise_words(full, item->x_mask + (at & item->mask_follow), left);
        vu32 some = v_and(mask, v_load(item->w_mask + phase));
        vu32 minus = v_and(some, v_xor(x, v_load(item->w + phase)));
        depthwise_increment(k, planes, plane, v_xor(some, ones));
        depthwise_increment(k + 1, planes, plane, v_xor(some, minus));
      }
  }
  BNN_UNROLL
  for (int k = 0; k < planes; k++) v_store(kept[k], plane[k]);
}

/* Results of the channels of one word, from lane `lane` of the planes. */
BNN_INLINE void depthwise_expand(const int signs, const int planes, const depthwise_count *count,
                                 uint32_t kept[][BNN_LANES], int64_t lane, int64_t channels, uint32_t *out) {
  enum { VECTORS = BNN_WORD / BNN_LANES };
  vbytes bytes = v_no_bytes();
  BNN_UNROLL
  for (int k = planes - 1; k >= 0; k--) bytes = v_append_bits(bytes, kept[k][lane]);
  uint8_t counted[BNN_WORD];
  v_store_bytes(counted, bytes);
  const vu32 start = v_set((uint32_t)count->start), factor = v_set((uint32_t)count->factor);
  const vf32 divisor = v_set_f32(count->divisor);
  vu32 sum[VECTORS];
  BNN_UNROLL
  for (int i = 0; i < VECTORS; i++) {
    sum[i] = v_load_bytes(counted + i * BNN_LANES);
    sum[i] = signs ? v_sub(start, v_add(sum[i], sum[i])) : v_add(start, v_mul(sum[i], factor));
  }
  int direct = channels == BNN_WORD && count->stride == 1;
  uint32_t result[BNN_WORD];
  if (count->add) {
    for (int64_t k = 0; k < channels; k++) result[k] = out[k * count->stride];
    for (int64_t k = channels; k < BNN_WORD; k++) result[k] = 0;
    BNN_UNROLL
    for (int i = 0; i < VECTORS; i++) sum[i] = v_add(sum[i], v_load(result + i * BNN_LANES));
  }
  if (count->whole && count->type == BNN_FLOAT32) {
    BNN_UNROLL
    for (int i = 0; i < VECTORS; i++) sum[i] = v_bits_of(v_float(sum[i]));
    if (count->divisor != 1) {
      BNN_UNROLL
      for (int i = 0; i < VECTORS; i++) sum[i] = v_bits_of(v_div_f32(v_as_float(sum[i]), divisor));
    }
  }
  uint32_t *to = direct ? out : result;
  BNN_UNROLL
  for (int i = 0; i < VECTORS; i++) v_store(to + i * BNN_LANES, sum[i]);
  for (int64_t k = 0; !direct && k < channels; k++) out[k * count->stride] = result[k];
}

/* The results of a run of `pixels` pixels side by side for one of the columns. */
BNN_INLINE void depthwise_count_run(const int signs, const int planes, const depthwise_count *count, int64_t pixels,
                                    int64_t channels, uint32_t *out) {
  int64_t words = bnn_words(channels), all = pixels * words, step = BNN_LANES % words, phase = 0, word = 0;
  uint32_t kept[DEPTHWISE_PLANES][BNN_LANES];
  for (int64_t at = 0; at < all; at += BNN_LANES) {
    int64_t left = all - at;
    if (left >= BNN_LANES)
      depthwise_digits(signs, planes, 1, count, at, phase, left, kept);
    else
      depthwise_digits(signs, planes, 0, count, at, phase, left, kept);
    for (int64_t lane = 0; lane < BNN_LANES && lane < left; lane++) {
      int64_t first = word * BNN_WORD, here = channels - first;
      depthwise_expand(signs, planes, count, kept, lane, here < BNN_WORD ? here : BNN_WORD,
                       out + first * count->stride);
      if (++word == words) {
        word = 0;
        out += channels * count->stride;
      }
    }
    phase += step;
    if (phase >= words) phase -= words;
  }
}

/* The sizes as functions of their own: what is constant in each unrolls. */
typedef void depthwise_count_of(const depthwise_count *count, int64_t pixels, int64_t channels, uint32_t *out);
static void depthwise_signs_4(const depthwise_count *count, int64_t pixels, int64_t channels, uint32_t *out) {
  depthwise_count_run(1, 4, count, pixels, channels, out);
}
static void depthwise_signs_6(const depthwise_count *count, int64_t pixels, int64_t channels, uint32_t *out) {
  depthwise_count_run(1, 6, count, pixels, channels, out);
}
static void depthwise_signs_8(const depthwise_count *count, int64_t pixels, int64_t channels, uint32_t *out) {
  depthwise_count_run(1, 8, count, pixels, channels, out);
}
static void depthwise_values_6(const depthwise_count *count, int64_t pixels, int64_t channels, uint32_t *out) {
  depthwise_count_run(0, 6, count, pixels, channels, out);
}
static void depthwise_values_8(const depthwise_count *count, int64_t pixels, int64_t channels, uint32_t *out) {
  depthwise_count_run(0, 8, count, pixels, channels, out);
}
static depthwise_count_of *const depthwise_counts[][3] = {
    {depthwise_values_6, depthwise_values_6, depthwise_values_8},
    {depthwise_signs_4, depthwise_signs_6, depthwise_signs_8},
};

typedef struct {
  const bnn_product *product;
  depthwise_count count;
  int64_t words, width;          /* of a row; of a row of the right operand with its beginning repeated */
  uint32_t *right;               /* [planes][columns][taps][width] */
  uint32_t *zeros, *ones;        /* [width] */
  int left_planes, right_planes; /* of values: two planes of ternary values are one */
  int64_t base;                  /* the counts of now are times 2^base */
} depthwise_bits;

static int depthwise_values(bnn_kind kind, int planes) { return kind == BNN_TERNARY ? 1 : planes; }

/* A vector can begin at each word of a row, so a row goes on with its own beginning. */
static int64_t depthwise_width(const bnn_product *p) { return bnn_words(p->groups) + BNN_LANES; }

static size_t depthwise_xnor_scratch(const bnn_product *p) {
  int64_t rows = p->right_planes * p->columns * p->schedule->taps + 2;
  return DEPTHWISE_COUNT * sizeof(depthwise_item) + (size_t)(rows * depthwise_width(p)) * sizeof(uint32_t);
}

static void depthwise_begin_bits(const bnn_product *p, void *scratch, depthwise_bits *work) {
  int64_t taps = p->schedule->taps, columns = p->columns, words = bnn_words(p->groups), width = depthwise_width(p);
  depthwise_item *item = scratch;
  *work = (depthwise_bits){.product = p, .words = words, .width = width};
  work->right = (uint32_t *)(item + DEPTHWISE_COUNT);
  work->zeros = work->right + p->right_planes * columns * taps * width;
  work->ones = work->zeros + width;
  work->left_planes = depthwise_values(p->left_kind, p->left_planes);
  work->right_planes = depthwise_values(p->right_kind, p->right_planes);
  work->count = (depthwise_count){.item = item, .stride = columns, .divisor = p->divisor};
  work->count.signs = p->left_kind == BNN_SIGN && p->right_kind == BNN_SIGN && p->left_planes * p->right_planes == 1;
  for (int64_t i = 0; i < width; i++) {
    work->zeros[i] = 0;
    work->ones[i] = ~0u;
  }
  const uint32_t *row = p->right; /* [planes][taps][columns][words] */
  for (int64_t i = 0; i < p->right_planes * taps * columns; i++, row += words) {
    int64_t plane = i / (taps * columns), tap = i / columns % taps;
    uint32_t *repeated = work->right + ((plane * columns + i % columns) * taps + tap) * width;
    for (int64_t w = 0; w < width; w++) repeated[w] = w < words ? row[w] : repeated[w - words];
  }
}

/* Counts what is listed, for a column of a run. */
static void depthwise_flush(depthwise_bits *work, int64_t pixels, uint32_t *out, int whole) {
  const bnn_product *p = work->product;
  depthwise_count *count = &work->count;
  count->whole = whole;
  count->type = p->out_type;
  count->start = count->signs ? count->total : -(count->total / 2 * (1 << work->base));
  count->factor = count->signs ? -2 : 1 << work->base;
  int size = count->total < 16 ? 0 : count->total < 64 ? 1 : 2;
  depthwise_counts[count->signs][size](count, pixels, p->groups, out);
  count->add = 1;
  count->total = 0;
  for (int k = 0; k < DEPTHWISE_PLANES; k++) count->end[k] = 0;
}

/* A tap of plane `plane` of the left and `other` of the right; `x` is the row of plane 0, or NULL where padded. */
static depthwise_item depthwise_meet(const depthwise_bits *work, const uint32_t *x, int plane, const uint32_t *w,
                                     int other) {
  const bnn_product *p = work->product;
  int64_t left = p->images * p->schedule->sources * work->words, right = p->columns * p->schedule->taps * work->width;
  depthwise_item item = {work->zeros, work->zeros, work->ones, work->ones, 0, 0};
  if (!x && p->pad < 0) item.x = work->ones;
  if (x && p->left_kind != BNN_UNIT) {
    item.x = x + plane * left;
    item.follow = -1;
  }
  if (x && p->left_kind != BNN_SIGN) {
    item.x_mask = x + (p->left_kind == BNN_TERNARY ? 1 : plane) * left;
    item.mask_follow = -1;
  }
  if (p->right_kind != BNN_UNIT) item.w = w + other * right;
  if (p->right_kind != BNN_SIGN) item.w_mask = w + (p->right_kind == BNN_TERNARY ? 1 : other) * right;
  return item;
}

/* The results of `pixels` pixels side by side that read from `x` on, for one of the columns. */
static void depthwise_bits_run(depthwise_bits *work, const bnn_class *c, const uint32_t *x, int64_t pixels,
                               const uint32_t *w, uint32_t *out) {
  depthwise_count *count = &work->count;
  count->add = count->total = 0;
  for (int k = 0; k < DEPTHWISE_PLANES; k++) count->end[k] = 0;
  work->base = 0;
  for (int digit = 0; digit < work->left_planes + work->right_planes - 1; digit++)
    for (int plane = 0; plane <= digit && plane < work->left_planes; plane++) {
      if (digit - plane >= work->right_planes) continue;
      for (int64_t i = 0; i < c->valid + c->padded; i++) {
        int more = count->signs ? 1 : digit - work->base < 7 ? 2 << (digit - work->base) : DEPTHWISE_COUNT + 1;
        if (count->total + more > DEPTHWISE_COUNT) {
          if (count->total) depthwise_flush(work, pixels, out, 0);
          work->base = digit;
          more = count->signs ? 1 : 2;
        }
        int64_t listed = count->end[DEPTHWISE_PLANES - 1];
        const uint32_t *from = i < c->valid ? x + c->offset[i] * work->words : NULL;
        count->item[listed] = depthwise_meet(work, from, plane, w + c->tap[i] * work->width, digit - plane);
        count->total += more;
        for (int64_t k = digit - work->base; k < DEPTHWISE_PLANES; k++) count->end[k] = listed + 1;
      }
    }
  depthwise_flush(work, pixels, out, 1);
}

static void depthwise_xnor_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  depthwise_bits work;
  depthwise_begin_bits(p, scratch, &work);
  while (begin < end) {
    position_run run = position_next(p->schedule, begin, end, end - begin);
    begin += run.count;
    int64_t together = run.source_step == 1 && run.target_step == 1 ? run.count : 1;
    for (int64_t i = 0; i < run.count; i += together) {
      const uint32_t *x = (const uint32_t *)p->left + (run.source + i * run.source_step) * work.words;
      uint32_t *out = (uint32_t *)p->out + (run.target + i * run.target_step) * p->groups * p->columns;
      for (int64_t j = 0; j < p->columns; j++)
        depthwise_bits_run(&work, run.class_, x, together, work.right + j * p->schedule->taps * work.width, out + j);
    }
  }
}

/* ---- floats ---------------------------------------------------------------------------------------------------- */

/* A result is one running sum over its taps, in the schedule's order; backwards, of several filters per channel, such
 * sums are added in the order of the filters. */

/* What one tap of a run reads: floats of the first position, and how far it is to the next (0 where padded). */
typedef struct {
  const float *x;
  int64_t step, tap;
} depthwise_row;

/* Sources at constant distances that taps side by side share. */
typedef struct {
  const char *source;
  int64_t step, count; /* step in bytes */
} depthwise_strip;

/* A left operand of bits, or of channels that several outputs read, is staged: as floats in the order of the outputs,
 * DEPTHWISE_WIDTH of them at a time, each source once for all taps of a strip. */
typedef struct {
  const bnn_product *product;
  int bits, staged;
  int64_t outputs, channels, spread; /* outputs = channels * spread */
  int64_t most;                      /* positions of a run */
  int64_t taps, strips;
  depthwise_row *row;
  depthwise_strip *strip;
  float *stage, *signs, *sums; /* sums: of a run, before they are folded */
} depthwise_work;

/* Lays out the areas behind `scratch`; returns their size. */
static size_t depthwise_areas(const bnn_product *p, int bits, int signs, void *scratch, depthwise_work *work) {
  int64_t taps = p->schedule->taps;
  *work = (depthwise_work){.product = p, .bits = bits, .staged = bits || p->columns > 1, .most = DEPTHWISE_RUN};
  work->spread = p->columns;
  work->channels = p->groups * p->depth;
  work->outputs = work->channels * work->spread;
  if (work->staged && work->most * taps > DEPTHWISE_STAGED)
    work->most = taps < DEPTHWISE_STAGED ? DEPTHWISE_STAGED / taps : 1;
  size_t floats[] = {work->staged ? (size_t)(taps * work->most + 1) * DEPTHWISE_WIDTH : 0,
                     signs ? (size_t)(taps * work->outputs) : 0,
                     p->depth > 1 ? (size_t)(work->most * work->outputs) : 0};
  size_t rows = (size_t)taps * sizeof(depthwise_row), strips = (size_t)(taps + 1) * sizeof(depthwise_strip);
  size_t all = (floats[0] + floats[1] + floats[2]) * sizeof(float) / 8 * 8 + 8;
  if (scratch) {
    work->stage = scratch; /* aligned, and so are its vectors */
    work->signs = work->stage + floats[0];
    work->sums = work->signs + floats[1];
    work->row = (depthwise_row *)((char *)scratch + all);
    work->strip = (depthwise_strip *)((char *)scratch + all + rows);
  }
  return all + rows + strips;
}

static void depthwise_list(depthwise_work *work, const position_run *run) {
  const bnn_product *p = work->product;
  const bnn_class *c = run->class_;
  int64_t length = work->bits ? bnn_words(work->channels) : work->channels; /* of a row, in items of four bytes */
  work->taps = c->valid + c->padded;
  work->strips = 0;
  float *stage = work->stage;
  for (int64_t i = 0, origin = 0; i < work->taps; i++) {
    int padded = i >= c->valid;
    const char *source =
        padded ? work->bits ? NULL : p->constant : (const char *)p->left + (run->source + c->offset[i]) * length * 4;
    if (!work->staged) {
      work->row[i] = (depthwise_row){(const float *)source, padded ? 0 : run->source_step * length, c->tap[i]};
      continue;
    }
    depthwise_strip *strip = work->strip + work->strips - 1;
    int64_t ahead = c->offset[i] - origin, count = padded ? 1 : run->count;
    if (!padded && i && ahead >= 0 && ahead % run->source_step == 0 && ahead / run->source_step <= strip->count) {
      ahead /= run->source_step;
      if (ahead + count > strip->count) strip->count = ahead + count;
    } else if (padded && i > c->valid) {
      ahead = 0;
    } else {
      if (strip >= work->strip) stage += strip->count * DEPTHWISE_WIDTH;
      *++strip = (depthwise_strip){source, run->source_step * length * 4, count};
      work->strips++;
      origin = c->offset[i];
      ahead = 0;
    }
    work->row[i] = (depthwise_row){stage + ahead * DEPTHWISE_WIDTH, padded ? 0 : DEPTHWISE_WIDTH, c->tap[i]};
  }
}

/* What the bits of a plane do to the values staged before it. */
typedef enum { DEPTHWISE_SET, DEPTHWISE_ADD, DEPTHWISE_MULTIPLY } depthwise_effect;

/* `yes` where the bit is set, else `no`, for 32 channels from `first` on, of which `count` exist. */
BNN_INLINE vf32 depthwise_choose(const int aligned, const uint32_t *row, int64_t first, int64_t count, vf32 yes,
                                 vf32 no) {
  const uint32_t *word = row + first / BNN_WORD;
  uint64_t pair = word[0];
  if (!aligned && count > BNN_WORD - first % BNN_WORD) pair |= (uint64_t)word[1] << BNN_WORD;
  return v_choose_f32(v_mask_of((uint32_t)(pair >> first % BNN_WORD)), yes, no);
}

/* The channels that outputs `at` .. at + LANES - 1 read, of every source, from a plane of bits or from floats. The
 * first of them is `first`, and `index` says which they are, seen from there; with a spread of one they are in order.
 */
BNN_INLINE void depthwise_stage_vector(const int bits, const int ordered, const depthwise_effect effect,
                                       const depthwise_work *work, int64_t at, int64_t plane, float yes, float no) {
  const bnn_product *p = work->product;
  uint32_t lane[BNN_LANES];
  int64_t first = ordered ? at : at / work->spread, phase = at - first * work->spread, left = work->channels - first;
  for (int l = 0; l < BNN_LANES; l++) {
    lane[l] = l ? lane[l - 1] : 0;
    if (ordered || phase++ < work->spread) continue;
    lane[l]++;
    phase = 1;
  }
  const vu32 index = v_load(lane);
  const vf32 set = v_set_f32(yes), clear = v_set_f32(no);
  float *stage = work->stage + at % DEPTHWISE_WIDTH;
  for (const depthwise_strip *strip = work->strip; strip < work->strip + work->strips; strip++) {
    if (!strip->source) { /* padding of bits, whose largest value has all planes set */
      int largest = p->left_kind == BNN_TERNARY ? 1 : (1 << p->left_planes) - 1;
      v_store_f32(stage, v_set_f32((float)(p->pad * largest)));
      stage += DEPTHWISE_WIDTH;
      continue;
    }
    const char *source = strip->source + plane;
    for (int64_t i = 0; i < strip->count; i++, source += strip->step, stage += DEPTHWISE_WIDTH) {
      vf32 x;
      if (bits)
        x = depthwise_choose(ordered, (const uint32_t *)source, first, left, set, clear);
      else if (left >= BNN_LANES)
        x = v_load_f32((const float *)source + first);
      else
        x = v_load_part_f32((const float *)source + first, left);
      if (!ordered) x = v_pick_f32(x, index);
      if (effect == DEPTHWISE_ADD) x = v_add_f32(v_load_f32(stage), x);
      if (effect == DEPTHWISE_MULTIPLY) x = v_mul_f32(v_load_f32(stage), x);
      v_store_f32(stage, x);
    }
  }
}

static void depthwise_stage_bits(const depthwise_work *work, int64_t at, int plane) {
  const bnn_product *p = work->product;
  int mask = p->left_kind == BNN_TERNARY && plane == 1, ordered = work->spread == 1;
  int64_t bytes = plane * p->images * p->schedule->sources * bnn_words(p->groups) * 4;
  float weight = mask ? 1 : (float)(1 << plane), yes = mask || p->left_kind == BNN_UNIT ? weight : -weight;
  float no = mask || p->left_kind == BNN_UNIT ? 0 : weight;
  if (ordered && !plane)
    depthwise_stage_vector(1, 1, DEPTHWISE_SET, work, at, bytes, yes, no);
  else if (!plane)
    depthwise_stage_vector(1, 0, DEPTHWISE_SET, work, at, bytes, yes, no);
  else if (ordered && mask)
    depthwise_stage_vector(1, 1, DEPTHWISE_MULTIPLY, work, at, bytes, yes, no);
  else if (ordered)
    depthwise_stage_vector(1, 1, DEPTHWISE_ADD, work, at, bytes, yes, no);
  else
    depthwise_stage_vector(1, 0, mask ? DEPTHWISE_MULTIPLY : DEPTHWISE_ADD, work, at, bytes, yes, no);
}

static void depthwise_stage(const depthwise_work *work, int64_t at) {
  for (int64_t v = at; v < at + DEPTHWISE_WIDTH && v < work->outputs; v += BNN_LANES) {
    if (!work->bits) depthwise_stage_vector(0, 0, DEPTHWISE_SET, work, v, 0, 0, 0);
    for (int plane = 0; work->bits && plane < work->product->left_planes; plane++) depthwise_stage_bits(work, v, plane);
  }
}

/* The results of `rows` positions from `first` on, of which `used` are wanted, for one or two vectors of outputs. */
BNN_INLINE void depthwise_tile(const int rows, const int vectors, const int full, const depthwise_work *work,
                               const float *w, int64_t first, int64_t used, int64_t at, float *out, int64_t out_step) {
  enum { CELLS = 2 * DEPTHWISE_ROWS };
  const int cells = rows * vectors;
  int64_t left = work->outputs - at, x_at = work->staged ? 0 : at;
  vf32 sum[CELLS];
  BNN_UNROLL
  for (int i = 0; i < cells; i++) sum[i] = v_set_f32(0);
  for (const depthwise_row *row = work->row; row < work->row + work->taps; row++) {
    const float *weight = w + row->tap * work->outputs + at, *x[DEPTHWISE_ROWS];
    BNN_UNROLL
    for (int r = 0; r < rows; r++) x[r] = row->x + (first + (r < used ? r : 0)) * row->step + x_at;
    BNN_UNROLL
    for (int r = 0; r < rows; r++) fetch_ahead(x[r] + FETCH_AHEAD, (size_t)vectors * BNN_LANES * sizeof *x[r]);
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      int lane = i % vectors * BNN_LANES;
      vf32 a = full ? v_load_f32(x[i / vectors] + lane) : v_load_part_f32(x[i / vectors] + lane, left - lane);
      vf32 b = full ? v_load_f32(weight + lane) : v_load_part_f32(weight + lane, left - lane);
      sum[i] = v_fma_f32(a, b, sum[i]);
    }
  }
  BNN_UNROLL
  for (int i = 0; i < cells; i++)
    if (i / vectors < used) {
      int lane = i % vectors * BNN_LANES;
      float *to = out + (first + i / vectors) * out_step + at + lane;
      if (full)
        v_store_f32(to, sum[i]);
      else
        v_store_part_f32(to, sum[i], left - lane);
    }
}

/* The results of `used` positions from `first` on, for up to two vectors of outputs. */
BNN_INLINE void depthwise_some(const depthwise_work *work, const float *w, int64_t first, int64_t used, int64_t at,
                               float *out, int64_t out_step) {
  int64_t left = work->outputs - at;
  if (left >= DEPTHWISE_WIDTH && used > 1)
    depthwise_tile(DEPTHWISE_ROWS, 2, 1, work, w, first, used, at, out, out_step);
  else if (left >= DEPTHWISE_WIDTH)
    depthwise_tile(1, 2, 1, work, w, first, used, at, out, out_step);
  else if (left > BNN_LANES)
    depthwise_tile(DEPTHWISE_ROWS, 2, 0, work, w, first, used, at, out, out_step);
  else
    depthwise_tile(DEPTHWISE_ROWS, 1, 0, work, w, first, used, at, out, out_step);
}

/* The results of a run. Rows that are read where they lie are best read as they lie: all outputs of a few positions. */
static void depthwise_rows(const depthwise_work *work, const float *w, int64_t positions, float *out,
                           int64_t out_step) {
  int64_t block = work->staged ? positions : 2 * DEPTHWISE_ROWS;
  for (int64_t begin = 0; begin < positions; begin += block) {
    int64_t end = positions - begin < block ? positions : begin + block;
    for (int64_t at = 0; at < work->outputs; at += DEPTHWISE_WIDTH) {
      if (work->staged) depthwise_stage(work, at);
      for (int64_t first = begin; first < end; first += DEPTHWISE_ROWS)
        depthwise_some(work, w, first, end - first < DEPTHWISE_ROWS ? end - first : DEPTHWISE_ROWS, at, out, out_step);
    }
  }
}

/* Sums over the multiplier, when the product runs backwards. */
static void depthwise_fold(const float *sums, int64_t outputs, int64_t depth, float *out) {
  for (int64_t k = 0; k < outputs; k++, sums += depth) {
    float sum = sums[0];
    for (int64_t j = 1; j < depth; j++) sum += sums[j];
    out[k] = sum;
  }
}

/* Signs as floats in the order of the outputs, from words [taps][multiplier][bnn_words(channels)]. */
static void depthwise_expand_signs(const uint32_t *words, int64_t taps, int64_t channels, int64_t multiplier,
                                   float *out) {
  int64_t length = bnn_words(channels);
  float part[BNN_WORD];
  for (int64_t tap = 0; tap < taps; tap++, out += channels * multiplier)
    for (int64_t j = 0; j < multiplier; j++, words += length) {
      if (multiplier == 1) {
        signed_expand(words, channels, out);
        continue;
      }
      for (int64_t w = 0; w < length; w++) {
        int64_t first = w * BNN_WORD, here = channels - first < BNN_WORD ? channels - first : BNN_WORD;
        signed_expand(words + w, here, part);
        for (int64_t k = 0; k < here; k++) out[(first + k) * multiplier + j] = part[k];
      }
    }
}

static void depthwise_float_run(const bnn_product *p, int left_bits, int right_bits, int64_t begin, int64_t end,
                                void *scratch) {
  const bnn_schedule *s = p->schedule;
  depthwise_work work;
  depthwise_areas(p, left_bits, right_bits, scratch, &work);
  const float *w = p->right;
  if (right_bits) {
    depthwise_expand_signs(p->right, s->taps, p->groups, p->depth * p->columns, work.signs);
    w = work.signs;
  }
  int64_t length = p->groups * p->columns;
  while (begin < end) {
    position_run run = position_next(s, begin, end, work.most);
    begin += run.count;
    float *out = (float *)p->out + run.target * length;
    int64_t step = run.target_step * length;
    depthwise_list(&work, &run);
    if (p->depth == 1) {
      depthwise_rows(&work, w, run.count, out, step);
      continue;
    }
    depthwise_rows(&work, w, run.count, work.sums, work.outputs);
    for (int64_t i = 0; i < run.count; i++)
      depthwise_fold(work.sums + i * work.outputs, p->groups, p->depth, out + i * step);
  }
}

static size_t depthwise_right_scratch(const bnn_product *p) {
  return depthwise_areas(p, 0, 1, NULL, &(depthwise_work){0});
}
static size_t depthwise_left_scratch(const bnn_product *p) {
  return depthwise_areas(p, 1, 0, NULL, &(depthwise_work){0});
}
static size_t depthwise_both_scratch(const bnn_product *p) {
  return depthwise_areas(p, 0, 0, NULL, &(depthwise_work){0});
}

static void depthwise_right_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  depthwise_float_run(p, 0, 1, begin, end, scratch);
}
static void depthwise_left_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  depthwise_float_run(p, 1, 0, begin, end, scratch);
}
static void depthwise_both_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  depthwise_float_run(p, 0, 0, begin, end, scratch);
}

/* ---- kernel gradient ------------------------------------------------------------------------------------------- */

/* An item is a part of the positions. Within a part a run is one running sum from zero, added to the part's sum. */

/* Adds the sums of up to three taps over a run to `out`. */
BNN_INLINE void depthwise_reduce_tile(const int vectors, const int full, const depthwise_work *work, int64_t tap,
                                      int64_t positions, const float *dy, int64_t dy_step, int64_t at, float *out) {
  enum { TAPS = DEPTHWISE_TILE_TAPS };
  const int cells = TAPS * vectors;
  int64_t left = work->outputs - at, used = work->taps - tap, step[TAPS];
  const float *x[TAPS];
  BNN_UNROLL
  for (int t = 0; t < TAPS; t++) {
    const depthwise_row *row = work->row + tap + (t < used ? t : 0);
    x[t] = row->x + (work->staged ? 0 : at);
    step[t] = row->step;
  }
  vf32 sum[2 * TAPS];
  BNN_UNROLL
  for (int i = 0; i < cells; i++) sum[i] = v_set_f32(0);
  dy += at;
  for (int64_t r = 0; r < positions; r++, dy += dy_step) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      const float *a = x[i / vectors] + i % vectors * BNN_LANES, *b = dy + i % vectors * BNN_LANES;
      int64_t here = left - i % vectors * BNN_LANES;
      sum[i] = v_fma_f32(full ? v_load_f32(a) : v_load_part_f32(a, here),
                         full ? v_load_f32(b) : v_load_part_f32(b, here), sum[i]);
    }
    BNN_UNROLL
    for (int t = 0; t < TAPS; t++) x[t] += step[t];
  }
  BNN_UNROLL
  for (int i = 0; i < cells; i++)
    if (i / vectors < used) {
      int64_t lane = i % vectors * BNN_LANES;
      float *to = out + work->row[tap + i / vectors].tap * work->outputs + at + lane;
      if (full)
        v_store_f32(to, v_add_f32(v_load_f32(to), sum[i]));
      else
        v_store_part_f32(to, v_add_f32(v_load_part_f32(to, left - lane), sum[i]), left - lane);
    }
}

static void depthwise_reduce_rows(const depthwise_work *work, int64_t positions, const float *dy, int64_t dy_step,
                                  int64_t at, float *out) {
  int64_t left = work->outputs - at;
  for (int64_t tap = 0; tap < work->taps; tap += DEPTHWISE_TILE_TAPS) {
    if (left >= DEPTHWISE_WIDTH)
      depthwise_reduce_tile(2, 1, work, tap, positions, dy, dy_step, at, out);
    else if (left > BNN_LANES)
      depthwise_reduce_tile(2, 0, work, tap, positions, dy, dy_step, at, out);
    else
      depthwise_reduce_tile(1, 0, work, tap, positions, dy, dy_step, at, out);
  }
}

static void depthwise_reduce_parts(const bnn_product *p, int bits, int64_t begin, int64_t end, void *scratch) {
  const bnn_schedule *s = p->schedule;
  int64_t parts = position_parts(p), all = positions_of(p);
  depthwise_work work;
  depthwise_areas(p, bits, 0, scratch, &work);
  for (int64_t part = begin; part < end; part++) {
    float *out = (float *)p->out + part * s->taps * work.outputs;
    for (int64_t i = 0; i < s->taps * work.outputs; i++) out[i] = 0;
    int64_t stop = all * (part + 1) / parts;
    for (int64_t item = all * part / parts; item < stop;) {
      position_run run = position_next(s, item, stop, work.most);
      item += run.count;
      const float *dy = (const float *)p->right + run.target * work.outputs;
      depthwise_list(&work, &run);
      for (int64_t at = 0; at < work.outputs; at += DEPTHWISE_WIDTH) {
        if (work.staged) depthwise_stage(&work, at);
        depthwise_reduce_rows(&work, run.count, dy, run.target_step * work.outputs, at, out);
      }
    }
  }
}

static void depthwise_reduce_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  depthwise_reduce_parts(p, 1, begin, end, scratch);
}
static void depthwise_reduce_both_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  depthwise_reduce_parts(p, 0, begin, end, scratch);
}

static void depthwise_sum(const float *parts, int64_t count, int64_t length, float *out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) out[i] = parts[i];
  for (int64_t part = 1; part < count; part++)
    for (int64_t i = begin; i < end; i++) out[i] += parts[part * length + i];
}
