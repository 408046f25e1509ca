/* The contract between the binding, the kernels and the instruction sets.
 *
 * Bits: sign bit 1 is negative; words are uint32, least significant bit first; the packed axis is last and the tail
 * of its last word is zero. A canonical operand is uint32[planes][...][ceil(n / 32)].
 *
 * Kernels work on a range of independent items, so a caller can split them over threads. They never allocate, never
 * fail and keep no state: the caller gives them scratch and has checked every argument.
 */
#ifndef BNN_H
#define BNN_H

#include <stddef.h>
#include <stdint.h>

#define BNN_WORD 32
#define BNN_ALIGN 64 /* bytes: every prepared operand and scratch area starts on such a boundary */

static inline int64_t bnn_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t bnn_least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t bnn_words(int64_t bits) { return bnn_ceil(bits, BNN_WORD); }

/* The next area of a scratch of which `used` bytes are taken; NULL where only its size is asked for. */
static inline void *bnn_area(void *scratch, size_t *used, int64_t bytes) {
  void *area = scratch ? (char *)scratch + *used : NULL;
  *used += (size_t)bnn_ceil(bytes, BNN_ALIGN) * BNN_ALIGN;
  return area;
}

/* ---- convolution geometry -------------------------------------------------------------------------------------- */

/* Always three spatial axes: lower ranks lead with ones. `pad` is the low side; the high side follows from `out`.
 * A dense layer is one tap over an image of `in[2]` samples. */
typedef struct {
  int64_t batch, groups, channels, filters; /* channels and filters count all groups */
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
} bnn_geometry;

/* Output pixels that read the same set of taps. The source pixel of position p and tap index i < valid is
 * base[p] + offset[i]; taps valid .. valid + padded - 1 read the constant row. */
typedef struct {
  int64_t first, count; /* positions in `pixel` and `base` */
  int64_t valid, padded;
  const int32_t *tap;    /* [valid + padded] index into the kernel's taps */
  const int32_t *offset; /* [valid + padded], 0 where padded */
  int64_t row;           /* positions of which pixels and bases lie evenly apart; the next ones begin anew */
} bnn_class;

/* Which source pixel each target pixel reads, for one image, grouped into classes: zero padding is exact because an
 * invalid tap is not listed. `transposed` schedules (input gradient, transposed layers) run from the geometry's outputs
 * to its inputs. */
typedef struct {
  bnn_geometry geometry; /* what the lists below were made of */
  int transposed;
  int64_t pixels, sources, taps; /* target pixels, source pixels, taps of the kernel */
  int64_t classes;
  const bnn_class *class_;
  const int32_t *pixel; /* [pixels] target pixel at each position: a permutation */
  const int32_t *base;  /* [pixels] */
} bnn_schedule;

/* NULL if the geometry is sound, else a static text naming what is wrong (sizes, divisibility, overflow). */
const char *bnn_geometry_error(const bnn_geometry *geometry);

/* One allocation, freed with free(); NULL when memory is short. With `constant` (pad value not zero) padded taps are
 * listed as such, else they are left out. */
bnn_schedule *bnn_schedule_make(const bnn_geometry *geometry, int transposed, int constant);

/* ---- packing --------------------------------------------------------------------------------------------------- */

/* What the bits of an operand stand for. Plane p of signs is +1, or -1 where the bit is 1, and counts 2^p times; plane
 * p of BNN_UNIT is 0 or 1 and counts 2^p times. BNN_TERNARY has two planes: signs, 0 where the value is, and which
 * values are not zero. */
typedef enum { BNN_SIGN, BNN_UNIT, BNN_TERNARY } bnn_kind;

#define BNN_PLANES 16 /* at most */

/* How values become bits: x < 0; x > 0; the sign of what is not below a threshold in magnitude; and the nearest of
 * `levels` equal steps from 0 to 1, as an integer of `planes` bits. */
typedef enum { BNN_PACK_SIGN, BNN_PACK_UNIT, BNN_PACK_TERNARY, BNN_PACK_LEVELS } bnn_packing;

/* x is C-contiguous [outer][count][inner]; words are [planes][outer][inner][bnn_words(count)] and the mask is like one
 * plane. An item is one packed vector (outer * inner of them). The mask bit is 1 where |x| <= clip; of levels, also
 * x >= 0. */
typedef struct {
  const void *x;
  int64_t outer, count, inner;
  bnn_packing packing;
  int planes;
  double parameter; /* threshold >= 0, or levels = 2^planes - 1 */
  double clip;
  uint32_t *words;
  uint32_t *mask; /* or NULL */
} bnn_pack;

/* out[i] = +-1 from sign words, or dy where the mask bit is 1 and 0 elsewhere; layout as in bnn_pack. */
typedef struct {
  const uint32_t *words;
  const void *dy; /* NULL: unpack signs */
  int64_t outer, count, inner;
  void *out;
  int add; /* to what is there */
} bnn_unpack;

/* ---- products -------------------------------------------------------------------------------------------------- */

/* The right operand of a product, from canonical words [planes][taps][filters][bnn_words(channels / groups)].
 * Forward: columns are filters and the depth is channels. Transposed: the other way round, per group. */
typedef struct {
  int64_t planes, taps, groups, channels, filters; /* channels and filters count all groups */
  int transposed;
} bnn_weights;

typedef enum { BNN_INT32, BNN_FLOAT32, BNN_INT16 } bnn_type;

static inline int64_t bnn_size(bnn_type type) { return type == BNN_INT16 ? 2 : 4; }

typedef struct {
  const bnn_schedule *schedule;
  int64_t images, groups;
  int64_t depth;   /* channels reduced per tap and group */
  int64_t columns; /* results per pixel and group */
  const void *left;
  const void *right;
  const void *constant; /* row read by padded taps, for one group; packed or float as the left operand. Not for xnor */
  void *out;
  bnn_type out_type;
  int by_group; /* of a kernel gradient: out is [groups][taps][depth][columns] */
  int threads;  /* that items are made for; 0: any number. No other result */
  int few;      /* of the signed kernels: most floats are zero. Another order of sums, and no other result */
  /* Of xnor, whose sums fit int32. Padded taps read `pad` (-1 or +1) times the largest value of the left operand. */
  bnn_kind left_kind, right_kind;
  int left_planes, right_planes;
  int pad;
  float divisor; /* of depthwise results that are floats */
} bnn_product;

typedef struct {
  int64_t (*items)(const bnn_product *product);
  size_t (*scratch)(const bnn_product *product); /* bytes per thread */
  void (*run)(const bnn_product *product, int64_t begin, int64_t end, void *scratch);
  /* How many results `out` has one behind another, which the caller is to add up in order; NULL: it is the result. The
   * number depends on nothing but the product. */
  int64_t (*parts)(const bnn_product *product);
} bnn_kernel;

/* ---- what surrounds a product in a training step ---------------------------------------------------------------- */

/* One pass over memory; `what` points to the struct that is named beside the entry of the table. */
typedef void (*bnn_pass)(const void *what, int64_t begin, int64_t end);

#define BNN_NORM_APART 64

/* Some neighbouring channels of x, and of its gradient. */
typedef struct {
  int64_t channels, stride; /* values from a row of x to the next */
  const void *x;
  float *dx;    /* [rows][channels] */
  int integers; /* whether x is int16_t: the results of a product of bits; else float */
} bnn_norm_piece;

/* Batch norm of rows, [rows][channels]. From BNN_NORM_APART channels on, rows of x may lie apart and x may be
 * several pieces side by side, each of whole words. An item of the sums is a block of rows, of the totals a channel. */
typedef struct {
  int64_t rows, channels; /* channels positive; rows too, but in the totals */
  int64_t pieces;         /* the moments take one */
  const bnn_norm_piece *piece;
  int rectified; /* whether x counts as 0 unless it is positive or NaN */
  const float *dy;
  const float *addend;  /* like dy: is added to what is normalized; it may be NULL */
  int add;              /* whether the gradient is added to dx */
  const uint32_t *mask; /* [rows][channels / BNN_WORD]: where it has no bit, dy counts as 0; NULL: all count */
  const float *mean, *inverse, *scale, *shift, *slope; /* [channels] */
  float epsilon;                                       /* is added to a variance */
  float *average[2], rate, unbiased;                   /* moving averages of mean and variance, or NULL */
  float *parts;        /* [blocks][2][channels]: what the sums write and the totals read */
  double *before;      /* [2][channels]: sums of the rows before x, to which those of x are added; or NULL */
  int64_t rows_before; /* whole blocks, if there are rows of x behind them */
  float *out;          /* like dy; of the totals [3][channels] or [4][channels] */
  float clip;
  uint32_t *words, *within; /* like mask: signs, and whether the magnitude is at most `clip`; it may be NULL */
  uint8_t *nan;             /* [blocks] */
} bnn_norm;

/* Pooling, or backwards its gradient. A geometry of as many filters as channels, without dilation, whose windows all
 * reach an input pixel. An item is a row of pixels of `to`: along its last axis. */
typedef struct {
  const bnn_geometry *geometry;
  const float *from; /* x, or dy */
  float *to;         /* y, or dx */
  /* [planes][batch][outputs][bnn_words(channels)]: bit p of the tap that won is in plane p. NULL: the mean is taken, or
   * nobody asks who won. */
  uint32_t *winner;
  int planes;
} bnn_pool;

/* An item is a word of the mask: y = min(max(x, 0), limit), and the mask bit is 1 where 0 < x <= last. */
typedef struct {
  int64_t count;
  const float *x;
  float limit, last;
  float *y;
  uint32_t *mask; /* or NULL */
} bnn_rectify;

/* A step of an optimizer, in place; an item is an element. Each rule with its state and coefficients is described in
 * kernels/update.h. */
typedef enum { BNN_SGD, BNN_MOMENTUM, BNN_NESTEROV, BNN_ADAM, BNN_AMSGRAD, BNN_BOP, BNN_RULES } bnn_rule;

typedef struct {
  bnn_rule rule;
  float *value, *state[3];
  const float *grad;
  float coefficient[4];
  float limit; /* of the magnitude of a new value; INFINITY for none */
} bnn_update;

/* ---- one table per instruction-set level ----------------------------------------------------------------------- */

/* Elementwise loops on contiguous arrays: in[i][k] -> out[k]. Generated from ops.def, in its order. */
typedef void (*bnn_loop_f32)(const float *const *in, float *out, int64_t n);
typedef void (*bnn_loop_f64)(const double *const *in, double *out, int64_t n);

enum {
#define BNN_OP(name, inputs, signature, doc) BNN_OP_##name,
#include "ops.def"
#undef BNN_OP
  BNN_OPS
};

typedef struct {
  const char *level;

  bnn_loop_f32 loops_f32[BNN_OPS];
  bnn_loop_f64 loops_f64[BNN_OPS];

  /* Return nonzero when a NaN was met in the range (its sign bit is then meaningless). */
  int (*pack_f32)(const bnn_pack *pack, int64_t begin, int64_t end);
  int (*pack_f64)(const bnn_pack *pack, int64_t begin, int64_t end);
  void (*unpack_f32)(const bnn_unpack *unpack, int64_t begin, int64_t end);
  void (*unpack_f64)(const bnn_unpack *unpack, int64_t begin, int64_t end);

  /* Re-lay rows of `channels` packed bits as `groups` word-aligned rows; needed when channels / groups % 32 != 0. */
  void (*split_groups)(const uint32_t *words, int64_t rows, int64_t channels, int64_t groups, uint32_t *out);

  /* Whether all `count` bits of each row of words are one. */
  int (*all_set)(const uint32_t *words, int64_t rows, int64_t count);

  /* The opaque layout of a right operand on this level. */
  size_t (*prepared_size)(const bnn_weights *weights);
  void (*prepare)(const bnn_weights *weights, const uint32_t *words, void *blob);

  /* left: packed [planes][images][sources][groups][bnn_words(depth)], right: prepared,
   * out: [images][pixels][groups * columns] */
  bnn_kernel xnor;
  /* left: float [images][sources][groups * depth], right: prepared, out: float */
  bnn_kernel signed_right;
  /* left: packed as for xnor, one plane of signs, right: float [taps][depth][groups * columns], out: float */
  bnn_kernel signed_left;
  /* kernel gradient. left: packed as for xnor; right: float dy [images][pixels][groups * columns];
   * out: float [taps][depth][groups * columns] */
  bnn_kernel signed_reduce;

  /* left: float [images][sources][groups * depth], right: float [taps][depth][groups * columns], out: float */
  bnn_kernel direct;
  /* kernel gradient. left: as above; right: float dy [images][pixels][groups * columns];
   * out: float [taps][depth][groups * columns] */
  bnn_kernel direct_reduce;

  /* Depthwise: groups are channels, and depth or, backwards, columns are one. Kinds, planes and pad are as for xnor.
   * left: [planes][images][sources][bnn_words(groups)], or floats [images][sources][groups * depth], and constant a row
   * of floats; right: canonical words [planes][taps][multiplier][bnn_words(groups)], one plane of signs where left is
   * floats, or floats [taps][groups * depth * columns]. Backwards, left is floats. */
  bnn_kernel depthwise_xnor;
  bnn_kernel depthwise_right; /* float x bits */
  bnn_kernel depthwise_left;  /* bits x float */
  bnn_kernel depthwise_float; /* float x float */
  /* Kernel gradients, of a left operand of bits or of floats. right: float dy [images][pixels][groups * columns]. Item
   * i writes the i-th of out: float [items][taps][groups * columns], whose sum is the result. */
  bnn_kernel depthwise_reduce, depthwise_float_reduce;
  /* out[i] = parts[0][i] + parts[1][i] + ...; parts: [count][length]; items are 0 .. length - 1. */
  void (*sum_parts)(const float *parts, int64_t count, int64_t length, float *out, int64_t begin, int64_t end);

  /* bnn_norm: the mean and the sum of squared differences from it of each block, and of them mean, variance and
   * 1 / sqrt(variance + epsilon), with which the averages move: average -= (average - value) rate; the sums of dy and
   * of dy (x - mean) of each block, and of them the gradients of shift and scale, and what is to be taken from dy: the
   * mean of dy, and a slope; (x - mean) scale + shift + addend, where the last two may be NULL, and its signs, of whole
   * words of channels, where `out` may be NULL; and ((dy - shift) - (x - mean) slope) scale, or 0 where a rectified x
   * is not positive. */
  int64_t (*norm_rows)(int64_t channels); /* of a block */
  int64_t (*norm_blocks)(int64_t rows, int64_t channels);
  bnn_pass norm_moments, norm_moments_total, norm_sums, norm_sums_total, normalize, normalize_sign, normalize_grad;
  bnn_pass max_pool, max_pool_grad, average_pool, average_pool_grad; /* bnn_pool */
  bnn_pass rectify;                                                  /* bnn_rectify */
  bnn_pass update;                                                   /* bnn_update */
} bnn_kernels;

/* The levels this machine runs, best first, capped by the environment variable BNNLAYERS_ISA; NULL-terminated. */
const bnn_kernels *const *bnn_supported(void);

/* ---- im2col: float x float through BLAS ------------------------------------------------------------------------ */

/* x: [images][sources][groups * depth]; columns: [groups][images * pixels][taps * depth], float or double. The
 * schedule of im2col lists padded taps (made with `constant`), that of col2im is transposed: there an image's `pixels`
 * are those of the input, and `x` is written. Items are images * schedule->pixels. */
typedef struct {
  const bnn_schedule *schedule;
  int64_t images, groups, depth;
  void *x, *columns;
  double pad;
} bnn_columns;

void bnn_im2col_f32(const bnn_columns *columns, int64_t begin, int64_t end);
void bnn_im2col_f64(const bnn_columns *columns, int64_t begin, int64_t end);
void bnn_col2im_f32(const bnn_columns *columns, int64_t begin, int64_t end);
void bnn_col2im_f64(const bnn_columns *columns, int64_t begin, int64_t end);

#endif
