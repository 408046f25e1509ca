/* Tiles: 16 rows of 64 bytes each, of which the machine has eight, named by a literal number. The primitives exist
 * between t_begin() and t_end(), which a kernel calls in each range it runs: a thread keeps no tile state between them.
 */
#ifndef BNN_SIMD_AMX_H
#define BNN_SIMD_AMX_H

#define BNN_TILES 1

#define BNN_EIGHT(x) \
  { x, x, x, x, x, x, x, x }
BNN_INLINE void t_begin(void) {
  static const struct {
    uint8_t palette, start_row, none[14];
    uint16_t row_bytes[8];
    uint8_t no_bytes[16], rows[8], no_rows[8];
  } config = {.palette = 1, .row_bytes = BNN_EIGHT(64), .rows = BNN_EIGHT(16)};
  _tile_loadconfig(&config);
}
#undef BNN_EIGHT
BNN_INLINE void t_end(void) { _tile_release(); }

/* `stride` bytes from a row to the next. Loads are fastest where every row is a cache line. */
#define t_load(tile, p, stride) _tile_loadd(tile, p, stride)
#define t_store(tile, p, stride) _tile_stored(tile, p, stride)
#define t_zero(tile) _tile_zero(tile)

/* Adds to sum[m][n], an int32, the products of signed bytes a[m][4 k + i] * b[k][4 n + i] over k < 16 and i < 4. */
#define t_dot(sum, a, b) _tile_dpbssd(sum, a, b)

#endif
