/* A strip is what a strided packing works on at a time: some words of some neighbouring vectors. Rows are often a power
 * of two apart, in memory as in words, and fall into the same few sets of a cache; so all that one visit to a row or to
 * a line of words brings is used at once. */

#define STRIP_WORDS 16   /* a cache line of one vector's words */
#define STRIP_LANES 1024 /* a page of floats: what is asked for ahead is then nearly always wanted */
#define STRIP_REGISTERS 4
#define STRIP_ROWS 4   /* that are read side by side, */
#define STRIP_LONG 256 /* if they are that long */

/* Of a contiguous packing: the pages that are read side by side, and their bytes. */
#define PACK_PAGES 4
#define PACK_PAGE 4096

#define FETCH_AHEAD 1024 /* floats: what is read is asked for that long before, what is written twice as long */

/* Asks for lines of memory that will be wanted soon. They may lie beyond the end of an array. */
BNN_INLINE void fetch_ahead(const void *p, size_t bytes) {
  for (size_t line = 0; line < bytes; line += BNN_ALIGN) __builtin_prefetch((const char *)p + line);
}

/* The same of `count` rows from one on, of those that there are. Inline, since GCC takes a function that asks for
 * memory and does nothing else for one that does nothing. */
BNN_INLINE void fetch_rows_ahead(const float *x, int64_t stride, size_t bytes, int64_t row, int64_t count,
                                 int64_t rows) {
  for (const int64_t end = bnn_least(row + count, rows); row < end; row++) fetch_ahead(x + row * stride, bytes);
}

/* The same as the first, of lines that will be written. */
BNN_INLINE void fetch_to_write(void *p, size_t bytes) {
  for (size_t line = 0; line < bytes; line += BNN_ALIGN) __builtin_prefetch((char *)p + line, 1);
}

/* `length` words lie between the words of neighbouring vectors. */
static void strip_out(uint32_t (*strip)[STRIP_LANES], int64_t vectors, int64_t words, uint32_t *out, int64_t length) {
  for (int64_t i = 0; i < vectors; i++)
    for (int64_t w = 0; w < words; w++) out[i * length + w] = strip[w][i];
}

static void strip_in(const uint32_t *in, int64_t length, int64_t vectors, int64_t words,
                     uint32_t (*strip)[STRIP_LANES]) {
  for (int64_t i = 0; i < vectors; i++)
    for (int64_t w = 0; w < words; w++) strip[w][i] = in[i * length + w];
}
