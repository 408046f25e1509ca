/* Quantizers as scalar functions, each with its pseudo-gradient directly below; the compiler vectorises the loops over
 * them. Included once per REAL; OF(name) is the name for that type. */

#ifndef BNN_POWER_OF_TWO
#define BNN_POWER_OF_TWO
/* 2^n, where n is what rounding left in the low bits of t, which is n + 1.5 * 2^(precision - 1). */
BNN_INLINE float power_of_two_f32(float t) {
  uint32_t bits;
  __builtin_memcpy(&bits, &t, sizeof bits);
  bits = (bits << 23) + (UINT32_C(127) << 23);
  __builtin_memcpy(&t, &bits, sizeof t);
  return t;
}
BNN_INLINE double power_of_two_f64(double t) {
  uint64_t bits;
  __builtin_memcpy(&bits, &t, sizeof bits);
  bits = (bits << 52) + (UINT64_C(1023) << 52);
  __builtin_memcpy(&t, &bits, sizeof t);
  return t;
}
#endif

/* e^x for x <= 0 to an ulp or two, and 0 where it would be subnormal; without a call, so that loops vectorise. */
BNN_INLINE REAL OF(exponential)(REAL x) {
  const REAL big = sizeof(REAL) == 4 ? (REAL)12582912 : (REAL)6755399441055744;
  const REAL least = sizeof(REAL) == 4 ? (REAL)-87 : (REAL)-708;
  const REAL log_2_high = sizeof(REAL) == 4 ? (REAL)0.693359375 : (REAL)0.693147180369123816490;
  const REAL log_2_low = sizeof(REAL) == 4 ? (REAL)-2.12194440e-4 : (REAL)1.90821492927058770002e-10;
  REAL inside = x < least ? least : x;
  REAL t = inside * (REAL)1.44269504088896340736 + big, n = t - big;
  REAL r = (inside - n * log_2_high) - n * log_2_low;
  static const double inverse[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0,         1.0};
  REAL sum = (REAL)inverse[0];
  for (int i = 1; i < 14; i++) sum = sum * r + (REAL)inverse[i];
  return x < least ? 0 : sum * OF(power_of_two)(t);
}

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

/* Through exp(-|beta x|), which cannot overflow where cosh would. With e that exponential, tanh(b / 2) is
 * (1 - e) / (1 + e) for b >= 0, and 1 / (1 + cosh(b)) is 2 e / (1 + e)^2. */
BNN_INLINE REAL OF(swish_sign)(REAL x) { return OF(ste_sign)(x); }
BNN_INLINE REAL OF(swish_sign_grad)(REAL x, REAL dy, REAL beta) {
  REAL b = OF(absolute)(beta * x), e = OF(exponential)(-b), sum = 1 + e;
  REAL slope = 2 - b * ((1 - e) / sum); /* infinite for infinite x, whose gradient is NaN as that of the formula */
  return b == b ? dy * beta * slope * (2 * e / (sum * sum)) : b;
}

BNN_INLINE REAL OF(ste_heaviside)(REAL x) {
  REAL step = x > 0 ? 1 : 0;
  return x == x ? step : x;
}
BNN_INLINE REAL OF(ste_heaviside_grad)(REAL x, REAL dy, REAL clip_value) {
  return OF(ste_sign_grad)(x, dy, clip_value);
}

/* Both differences are taken, so that an infinite or missing threshold says what the formula says. */
BNN_INLINE REAL OF(ste_tern)(REAL x, REAL threshold) {
  REAL up = x + threshold, down = x - threshold, sign = (REAL)((up > 0) - (up < 0) + (down > 0) - (down < 0));
  REAL side = sign < 0 ? -1 : 1, value = sign == 0 ? 0 : side;
  value = up == up ? value : up;
  return down == down ? value : down;
}
BNN_INLINE REAL OF(ste_tern_grad)(REAL x, REAL dy, REAL clip_value) { return OF(ste_sign_grad)(x, dy, clip_value); }

/* `levels` is 2^k - 1. Adding and subtracting 1.5 * 2^(precision - 1) rounds to an integer, halves to even. */
BNN_INLINE REAL OF(round_half_even)(REAL x) {
  const REAL big = sizeof(REAL) == 4 ? (REAL)12582912 : (REAL)6755399441055744;
  return (x + big) - big;
}
BNN_INLINE REAL OF(dorefa_activations)(REAL x, REAL levels) {
  REAL below = x > 1 ? 1 : x;
  return OF(round_half_even)((below < 0 ? 0 : below) * levels) / levels;
}
BNN_INLINE REAL OF(dorefa_activations_grad)(REAL x, REAL dy) { return ((x >= 0) & (x <= 1)) ? dy : 0; }

/* Of t = tanh(w) and the greatest |t| of the whole tensor. */
BNN_INLINE REAL OF(dorefa_weights)(REAL t, REAL maximum, REAL levels) {
  REAL limited = (maximum == 0 ? 0 : t / (2 * maximum)) + (REAL)0.5;
  return 2 * (OF(round_half_even)(limited * levels) / levels) - 1;
}
BNN_INLINE REAL OF(dorefa_weights_grad)(REAL t, REAL dy, REAL maximum) {
  return maximum == 0 ? 0 : dy * ((1 - t * t) / maximum);
}

BNN_INLINE REAL OF(clip)(REAL x, REAL low, REAL high) {
  REAL below = x > high ? high : x;
  return below < low ? low : below;
}
BNN_INLINE REAL OF(clip_grad)(REAL x, REAL dy, REAL low, REAL high) { return ((x >= low) & (x <= high)) ? dy : 0; }

BNN_INLINE REAL OF(hard_tanh)(REAL x) { return OF(clip)(x, -1, 1); }
BNN_INLINE REAL OF(hard_tanh_grad)(REAL x, REAL dy) { return OF(clip_grad)(x, dy, -1, 1); }

BNN_INLINE REAL OF(leaky_tanh)(REAL x, REAL alpha) {
  REAL inside = OF(hard_tanh)(x);
  return inside + alpha * (x - inside);
}
/* At both ends both branches count. */
BNN_INLINE REAL OF(leaky_tanh_grad)(REAL x, REAL dy, REAL alpha) {
  REAL size = OF(absolute)(x);
  return dy * ((size <= 1 ? (REAL)1 : 0) + (size >= 1 ? alpha : 0));
}

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
