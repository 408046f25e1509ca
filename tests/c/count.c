/* One representative call, named by the argument, for a tool that counts its instructions: those of `counted`. */
#include "bnn.h"

#include <stdlib.h>
#include <string.h>

extern const bnn_kernels COUNTED_LEVEL;

enum { SIZE = 14, CHANNELS = 128, FEW = 16, PIXELS = SIZE * SIZE, WORDS = CHANNELS / BNN_WORD };

__attribute__((noinline)) void counted(const bnn_kernel *kernel, const bnn_product *product, void *scratch) {
  kernel->run(product, 0, kernel->items(product), scratch);
}

__attribute__((noinline)) void counted_pack(const bnn_pack *pack) { COUNTED_LEVEL.pack_f32(pack, 0, pack->outer); }

static void *zeros(size_t bytes) {
  bytes = (bytes + BNN_ALIGN) / BNN_ALIGN * BNN_ALIGN;
  void *array = aligned_alloc(BNN_ALIGN, bytes);
  if (!array) exit(2);
  return memset(array, 0, bytes);
}

/* A 3x3 convolution of one image. */
static void convolution(const bnn_kernel *kernel, int64_t channels, const void *left) {
  const bnn_geometry geometry = {.batch = 1,
                                 .groups = 1,
                                 .channels = channels,
                                 .filters = CHANNELS,
                                 .in = {1, SIZE, SIZE},
                                 .out = {1, SIZE, SIZE},
                                 .kernel = {1, 3, 3},
                                 .stride = {1, 1, 1},
                                 .dilation = {1, 1, 1},
                                 .pad = {0, 1, 1}};
  const bnn_weights weights = {1, 9, 1, channels, CHANNELS, 0};
  void *right = zeros(COUNTED_LEVEL.prepared_size(&weights));
  COUNTED_LEVEL.prepare(&weights, zeros(9 * CHANNELS * WORDS * sizeof(uint32_t)), right);
  bnn_product product = {.schedule = bnn_schedule_make(&geometry, 0, 0),
                         .images = 1,
                         .groups = 1,
                         .depth = channels,
                         .columns = CHANNELS,
                         .left = left,
                         .right = right,
                         .out = zeros(PIXELS * CHANNELS * sizeof(float)),
                         .out_type = BNN_FLOAT32,
                         .left_planes = 1,
                         .right_planes = 1};
  counted(kernel, &product, zeros(kernel->scratch(&product)));
}

int main(int argc, char **argv) {
  const char *call = argc > 1 ? argv[1] : "";
  if (strcmp(call, "xnor") == 0) {
    convolution(&COUNTED_LEVEL.xnor, CHANNELS, zeros(PIXELS * WORDS * sizeof(uint32_t)));
  } else if (strcmp(call, "folded") == 0) {
    convolution(&COUNTED_LEVEL.xnor, FEW, zeros(PIXELS * sizeof(uint32_t)));
  } else if (strcmp(call, "signed_right") == 0) {
    convolution(&COUNTED_LEVEL.signed_right, CHANNELS, zeros(PIXELS * CHANNELS * sizeof(float)));
  } else if (strcmp(call, "pack") == 0) {
    const int64_t rows = 16 * PIXELS;
    bnn_pack pack = {.x = zeros(rows * CHANNELS * sizeof(float)),
                     .outer = rows,
                     .count = CHANNELS,
                     .inner = 1,
                     .planes = 1,
                     .clip = 1,
                     .words = zeros(rows * WORDS * sizeof(uint32_t)),
                     .mask = zeros(rows * WORDS * sizeof(uint32_t))};
    counted_pack(&pack);
  } else {
    return 1;
  }
  return 0;
}
