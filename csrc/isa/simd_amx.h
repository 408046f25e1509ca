/* Tiles: 16 rows of 64 bytes each, of which the machine has eight, named by a literal number. The primitives exist
 * between t_begin() and t_end(), which a kernel calls in each range it runs: a thread keeps no tile state between them.
 */
#ifndef BNN_SIMD_AMX_H
#define BNN_SIMD_AMX_H

#define BNN_TILES 1

BNN_INLINE void t_begin(void) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } __attribute__((aligned(64))) config = {.palette = 1};
  for (int i = 0; i < 8; i++) {
    config.row_bytes[i] = 64;
    config.rows[i] = 16;
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(config)); /* the intrinsic of gcc 12 loses the stores before it */
}
BNN_INLINE void t_end(void) { _tile_release(); }

/* `stride` bytes from a row to the next. Loads are fastest where every row is a cache line. */
#define t_load(tile, p, stride) _tile_loadd(tile, p, stride)
#define t_store(tile, p, stride) _tile_stored(tile, p, stride)
#define t_zero(tile) _tile_zero(tile)

/* Adds to sum[m][n], an int32, the products of signed bytes a[m][4 k + i] * b[k][4 n + i] over k < 16 and i < 4. */
#define t_dot(sum, a, b) _tile_dpbssd(sum, a, b)

#endif
