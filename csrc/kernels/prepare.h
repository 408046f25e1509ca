/* The layout of a right operand: [planes][groups][panels of 32 columns][taps][bnn_words(depth)][32 lanes]. Lane =
 * column, bit j of word w = depth element 32 w + j. A vector load brings one word of several columns, so sums stay in
 * their lane and results are neighbours. Lanes beyond the columns are zero. */

static int64_t bnn_panels(int64_t columns) { return bnn_ceil(columns, BNN_PANEL); }

static void split_groups(const uint32_t *words, int64_t rows, int64_t channels, int64_t groups, uint32_t *out) {
  int64_t depth = channels / groups, length = bnn_words(channels);
  for (int64_t row = 0; row < rows; row++, words += length)
    for (int64_t group = 0; group < groups; group++)
      for (int64_t done = 0; done < depth; done += BNN_WORD) {
        int64_t bit = group * depth + done, left = depth - done, word = bit / BNN_WORD, shift = bit % BNN_WORD;
        uint64_t pair = words[word];
        if (word + 1 < length) pair |= (uint64_t)words[word + 1] << BNN_WORD;
        *out++ = (uint32_t)(pair >> shift) & (left < BNN_WORD ? (1u << left) - 1 : ~0u);
      }
}

static int all_set(const uint32_t *words, int64_t rows, int64_t count) {
  int64_t whole = count / BNN_WORD, rest = count % BNN_WORD;
  if (!rest) whole *= rows, rows = 1; /* rows without a tail are one row */
  for (int64_t row = 0; row < rows; row++, words += whole + (rest > 0)) {
    uint32_t unset = rest ? ~words[whole] & ((1u << rest) - 1) : 0;
    for (int64_t w = 0; w < whole; w++) unset |= ~words[w];
    if (unset) return 0;
  }
  return 1;
}

static size_t prepared_size(const bnn_weights *w) {
  int64_t depth = (w->transposed ? w->filters : w->channels) / w->groups;
  int64_t columns = (w->transposed ? w->channels : w->filters) / w->groups;
  return (size_t)(w->planes * w->groups * bnn_panels(columns) * w->taps * bnn_words(depth)) * BNN_PANEL *
         sizeof(uint32_t);
}

static void prepare(const bnn_weights *weights, const uint32_t *words, void *blob) {
  int64_t groups = weights->groups, taps = weights->taps, filters = weights->filters;
  int64_t depth = (weights->transposed ? filters : weights->channels) / groups;
  int64_t columns = (weights->transposed ? weights->channels : filters) / groups;
  int64_t length = bnn_words(weights->channels / groups); /* words of a canonical row: one filter */
  uint32_t *out = blob;
  for (int64_t plane = 0; plane < weights->planes; plane++, words += taps * filters * length)
    for (int64_t group = 0; group < groups; group++)
      for (int64_t column = 0; column < columns; column += BNN_PANEL) {
        int64_t lanes = columns - column < BNN_PANEL ? columns - column : BNN_PANEL;
        for (int64_t tap = 0; tap < taps; tap++) {
          const uint32_t *rows = words + (tap * filters + group * (filters / groups)) * length;
          for (int64_t w = 0; w < bnn_words(depth); w++, out += BNN_PANEL) {
            for (int64_t lane = 0; lane < BNN_PANEL; lane++) out[lane] = 0;
            if (!weights->transposed) {
              for (int64_t lane = 0; lane < lanes; lane++) out[lane] = rows[(column + lane) * length + w];
              continue;
            }
            /* A 32 x 32 transpose: the columns are the bits of one word of each filter; its tail is zero already. */
            int64_t bits = depth - w * BNN_WORD < BNN_WORD ? depth - w * BNN_WORD : BNN_WORD;
            for (int64_t bit = 0; bit < bits; bit++) {
              uint32_t row = rows[(w * BNN_WORD + bit) * length + column / BNN_WORD];
              for (int lane = 0; lane < BNN_PANEL; lane++) out[lane] |= (row >> lane & 1) << bit;
            }
          }
        }
      }
}
