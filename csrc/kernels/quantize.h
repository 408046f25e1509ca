/* Quantizers as scalar functions, each with its pseudo-gradient directly below; the compiler vectorises the loops over
 * them. Included once per REAL; OF(name) is the name for that type. */

BNN_INLINE REAL OF(absolute)(REAL x) { return x < 0 ? -x : x; }

/* Both comparisons are made for every x, so there is no branch to vectorise around. */
BNN_INLINE REAL OF(ste_sign)(REAL x) {
  REAL sign = x < 0 ? -1 : 1;
  return x == x ? sign : x;
}
BNN_INLINE REAL OF(ste_sign_grad)(REAL x, REAL dy, REAL clip_value) { return OF(absolute)(x) <= clip_value ? dy : 0; }

BNN_INLINE REAL OF(approx_sign)(REAL x) { return OF(ste_sign)(x); }
BNN_INLINE REAL OF(approx_sign_grad)(REAL x, REAL dy) {
  REAL size = OF(absolute)(x), grad = (2 - 2 * size) * dy;
  return size <= 1 ? grad : 0;
}

BNN_INLINE REAL OF(clip)(REAL x, REAL low, REAL high) {
  REAL below = x > high ? high : x;
  return below < low ? low : below;
}
BNN_INLINE REAL OF(clip_grad)(REAL x, REAL dy, REAL low, REAL high) { return ((x >= low) & (x <= high)) ? dy : 0; }

BNN_INLINE REAL OF(hard_tanh)(REAL x) { return OF(clip)(x, -1, 1); }
BNN_INLINE REAL OF(hard_tanh_grad)(REAL x, REAL dy) { return OF(clip_grad)(x, dy, -1, 1); }

#define ARGUMENTS_1 in0[k]
#define ARGUMENTS_2 in0[k], in1[k]
#define ARGUMENTS_3 in0[k], in1[k], in2[k]
#define ARGUMENTS_4 in0[k], in1[k], in2[k], in3[k]
#define BNN_OP(name, inputs, signature, doc)                                 \
  static void OF(loop_##name)(const REAL *const *in, REAL *out, int64_t n) { \
    const REAL *in0 = in[0], *in1 = in[inputs > 1 ? 1 : 0];                  \
    const REAL *in2 = in[inputs > 2 ? 2 : 0], *in3 = in[inputs > 3 ? 3 : 0]; \
    (void)in1, (void)in2, (void)in3;                                         \
    BNN_INDEPENDENT                                                          \
    for (int64_t k = 0; k < n; k++) out[k] = OF(name)(ARGUMENTS_##inputs);   \
  }
#include "../ops.def"
#undef BNN_OP
#undef ARGUMENTS_1
#undef ARGUMENTS_2
#undef ARGUMENTS_3
#undef ARGUMENTS_4
