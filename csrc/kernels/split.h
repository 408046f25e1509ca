/* Bits that lie next to each other, as rows of whole words. */

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
