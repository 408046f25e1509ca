/* The int8 products that the tiles of AMX add up in a second at most, where the machine has them. */
#include <immintrin.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default"), target("amx-tile,amx-int8")))

enum { ROWS = 16, WIDTH = 64, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };

static _Alignas(64) uint8_t configuration[64];
static int8_t bytes[4 * ROWS * WIDTH]; /* not zero: those take less power and time */

/* Whether the system lets this process use tiles. */
EXPORT int peak_amx_begin(void) {
  if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA)) return 0;
  configuration[0] = 1;
  for (int tile = 0; tile < 8; tile++) configuration[16 + 2 * tile] = WIDTH, configuration[48 + tile] = ROWS;
  uint32_t state = 1;
  for (int i = 0; i < 4 * ROWS * WIDTH; i++) state = state * 1664525u + 1013904223u, bytes[i] = (int8_t)(state >> 24);
  return 1;
}

/* Two by two accumulators on tiles that stay. Returns the multiply-adds. */
EXPORT int64_t peak_amx(int64_t rounds) {
  _tile_loadconfig(configuration);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, bytes, WIDTH);
  _tile_loadd(5, bytes + ROWS * WIDTH, WIDTH);
  _tile_loadd(6, bytes + 2 * ROWS * WIDTH, WIDTH);
  _tile_loadd(7, bytes + 3 * ROWS * WIDTH, WIDTH);
  for (int64_t round = 0; round < rounds; round++) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
  return rounds * 4 * ROWS * ROWS * WIDTH;
}
