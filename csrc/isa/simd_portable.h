/* Vectors of four 32-bit lanes in the compiler's own vector language: every machine has them. */
#ifndef BNN_SIMD_PORTABLE_H
#define BNN_SIMD_PORTABLE_H

#define BNN_LANES 4
/* The register tile of bits x bits, and how many levels of carry-save adders pay before bits are counted: 0, 1 or 3. */
#define BNN_TILE_ROWS 2
#define BNN_TILE_VECTORS 2
#define BNN_REGISTERS 16 /* that hold vectors */
#define BNN_CARRY_LEVELS 1
#define BNN_COUNT_ROOM 31 /* counts are bytes, and a word adds at most 8 to each */

typedef uint32_t vu32 __attribute__((vector_size(16)));
typedef int32_t vi32 __attribute__((vector_size(16)));
typedef float vf32 __attribute__((vector_size(16)));
typedef struct {
  double lane[4];
} vf64;
typedef vu32 vmask; /* all ones where true */

/* ---- words ----------------------------------------------------------------------------------------------------- */

BNN_INLINE vu32 v_set(uint32_t x) { return (vu32){x, x, x, x}; }
BNN_INLINE vu32 v_load(const void *p) {
  vu32 x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
BNN_INLINE void v_store(void *p, vu32 x) { __builtin_memcpy(p, &x, sizeof x); }
/* The first n lanes; the others are not touched (store) or zero (load). n may exceed the lanes. */
BNN_INLINE vu32 v_load_part(const void *p, int64_t n) {
  vu32 x = {0};
  __builtin_memcpy(&x, p, n < BNN_LANES ? (size_t)n * 4 : sizeof x);
  return x;
}
BNN_INLINE void v_store_part(void *p, vu32 x, int64_t n) {
  __builtin_memcpy(p, &x, n < BNN_LANES ? (size_t)n * 4 : sizeof x);
}
/* The first n lanes, which lie `step` words apart. */
BNN_INLINE vu32 v_load_apart(const uint32_t *p, int64_t step, int64_t n) {
  return (vu32){p[0], n > 1 ? p[step] : 0, n > 2 ? p[2 * step] : 0, n > 3 ? p[3 * step] : 0};
}
BNN_INLINE vu32 v_and(vu32 a, vu32 b) { return a & b; }
BNN_INLINE vu32 v_xor(vu32 a, vu32 b) { return a ^ b; }
BNN_INLINE vu32 v_add(vu32 a, vu32 b) { return a + b; }
BNN_INLINE vu32 v_sub(vu32 a, vu32 b) { return a - b; }
BNN_INLINE vu32 v_mul(vu32 a, vu32 b) { return a * b; }
BNN_INLINE vu32 v_shift_left(vu32 x, int bits) { return x << (uint32_t)bits; }
BNN_INLINE vu32 v_shift_right(vu32 x, int bits) { return x >> (uint32_t)bits; }
BNN_INLINE vu32 v_xor3(vu32 a, vu32 b, vu32 c) { return a ^ b ^ c; }
BNN_INLINE vu32 v_xor_and(vu32 a, vu32 b, vu32 c) { return a ^ (b & c); }
BNN_INLINE vu32 v_and_xor(vu32 a, vu32 b, vu32 c) { return a & (b ^ c); }
/* t ? ~s : ones, bit by bit: the carry of a full adder whose sum is s and whose first half sum is t. */
BNN_INLINE vu32 v_carry(vu32 t, vu32 s, vu32 ones) { return (t & ~s) | (ones & ~t); }

/* Bits set, in lanes as narrow as is cheap; BNN_COUNT_ROOM of them may be added up before they are widened. */
BNN_INLINE vu32 v_count(vu32 x) {
  x = x - ((x >> 1) & 0x55555555u);
  x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
  return (x + (x >> 4)) & 0x0f0f0f0fu;
}
BNN_INLINE vu32 v_add_counts(vu32 a, vu32 b) { return a + b; }
BNN_INLINE vu32 v_widen_counts(vu32 x) {
  x = (x & 0x00ff00ffu) + ((x >> 8) & 0x00ff00ffu);
  return (x & 0xffffu) + (x >> 16);
}

/* ---- floats ---------------------------------------------------------------------------------------------------- */

BNN_INLINE vf32 v_set_f32(float x) { return (vf32){x, x, x, x}; }
BNN_INLINE vf32 v_load_f32(const float *p) { return (vf32)v_load(p); }
BNN_INLINE vf32 v_load_part_f32(const float *p, int64_t n) { return (vf32)v_load_part(p, n); }
BNN_INLINE void v_store_f32(float *p, vf32 x) { v_store(p, (vu32)x); }
BNN_INLINE void v_store_part_f32(float *p, vf32 x, int64_t n) { v_store_part(p, (vu32)x, n); }
BNN_INLINE vf32 v_add_f32(vf32 a, vf32 b) { return a + b; }
BNN_INLINE vf32 v_sub_f32(vf32 a, vf32 b) { return a - b; }
BNN_INLINE vf32 v_mul_f32(vf32 a, vf32 b) { return a * b; }
BNN_INLINE vf32 v_div_f32(vf32 a, vf32 b) { return a / b; }
BNN_INLINE vf32 v_fma_f32(vf32 a, vf32 b, vf32 c) { return a * b + c; }
BNN_INLINE vf32 v_float(vu32 x) { return __builtin_convertvector((vi32)x, vf32); }
/* Signed halves of words as words, and words that fit them as halves. */
typedef int16_t v_halves __attribute__((vector_size(8)));
BNN_INLINE vu32 v_load_i16(const int16_t *p) {
  v_halves x;
  __builtin_memcpy(&x, p, sizeof x);
  return (vu32) __builtin_convertvector(x, vi32);
}
BNN_INLINE void v_store_i16(int16_t *p, vu32 x) {
  v_halves halves = __builtin_convertvector((vi32)x, v_halves);
  __builtin_memcpy(p, &halves, sizeof halves);
}
BNN_INLINE vu32 v_bits_of(vf32 x) { return (vu32)x; }
BNN_INLINE vf32 v_as_float(vu32 x) { return (vf32)x; }

BNN_INLINE vf64 v_set_f64(double x) { return (vf64){{x, x, x, x}}; }
BNN_INLINE vf64 v_load_part_f64(const double *p, int64_t n) {
  vf64 x = {{0}};
  __builtin_memcpy(&x, p, n < BNN_LANES ? (size_t)n * 8 : sizeof x);
  return x;
}
BNN_INLINE vf64 v_load_f64(const double *p) { return v_load_part_f64(p, BNN_LANES); }
BNN_INLINE void v_store_part_f64(double *p, vf64 x, int64_t n) {
  __builtin_memcpy(p, &x, n < BNN_LANES ? (size_t)n * 8 : sizeof x);
}
BNN_INLINE void v_store_f64(double *p, vf64 x) { v_store_part_f64(p, x, BNN_LANES); }

/* ---- masks ----------------------------------------------------------------------------------------------------- */

BNN_INLINE vmask v_less_f32(vf32 a, vf32 b) { return (vmask)(a < b); }
BNN_INLINE vmask v_within_f32(vf32 x, vf32 limit) { return (vmask)((x <= limit) & (x >= -limit)); }
BNN_INLINE vmask v_nan_f32(vf32 x) { return (vmask)(x != x); }

#define BNN_EACH_LANE(test) \
  { -(uint32_t)(test(0)), -(uint32_t)(test(1)), -(uint32_t)(test(2)), -(uint32_t)(test(3)) }
BNN_INLINE vmask v_less_f64(vf64 a, vf64 b) {
#define BNN_TEST(i) (a.lane[i] < b.lane[i])
  return (vmask)BNN_EACH_LANE(BNN_TEST);
#undef BNN_TEST
}
BNN_INLINE vmask v_within_f64(vf64 x, vf64 limit) {
#define BNN_TEST(i) (x.lane[i] <= limit.lane[i] && x.lane[i] >= -limit.lane[i])
  return (vmask)BNN_EACH_LANE(BNN_TEST);
#undef BNN_TEST
}
BNN_INLINE vmask v_nan_f64(vf64 x) {
#define BNN_TEST(i) (x.lane[i] != x.lane[i])
  return (vmask)BNN_EACH_LANE(BNN_TEST);
#undef BNN_TEST
}
#undef BNN_EACH_LANE

BNN_INLINE vmask v_mask_none(void) { return v_set(0); }
BNN_INLINE vmask v_mask_or(vmask a, vmask b) { return a | b; }
BNN_INLINE vmask v_mask_without(vmask a, vmask b) { return a & ~b; }
/* Lane i of a mask is bit i. */
BNN_INLINE uint32_t v_mask_bits(vmask m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }
BNN_INLINE vmask v_mask_of(uint32_t bits) { return (vmask)((v_set(bits) & (vu32){1, 2, 4, 8}) != 0); }
BNN_INLINE vmask v_test(vu32 x, vu32 bit) { return (vmask)((x & bit) != 0); }
BNN_INLINE vu32 v_or_where(vu32 x, vmask m, vu32 bit) { return x | (m & bit); }
BNN_INLINE vf32 v_choose_f32(vmask m, vf32 yes, vf32 no) { return (vf32)((m & (vu32)yes) | (~m & (vu32)no)); }
BNN_INLINE vf64 v_add_f64(vf64 a, vf64 b) {
  return (vf64){{a.lane[0] + b.lane[0], a.lane[1] + b.lane[1], a.lane[2] + b.lane[2], a.lane[3] + b.lane[3]}};
}
BNN_INLINE vf64 v_choose_f64(vmask m, vf64 yes, vf64 no) {
  return (vf64){{m[0] ? yes.lane[0] : no.lane[0], m[1] ? yes.lane[1] : no.lane[1], m[2] ? yes.lane[2] : no.lane[2],
                 m[3] ? yes.lane[3] : no.lane[3]}};
}

/* The integer nearest to `levels` times x, of x clipped to [0, 1]; halves go to the even one. Adding a number that
 * leaves no room for a fraction rounds. */
BNN_INLINE vu32 v_level_f32(vf32 x, vf32 levels) {
  vf32 one = v_set_f32(1), big = v_set_f32(8388608);
  vf32 below = v_choose_f32(v_less_f32(x, one), x, one);
  vf32 inside = v_choose_f32(v_less_f32(v_set_f32(0), below), below, v_set_f32(0));
  return v_bits_of(inside * levels + big) - v_bits_of(big);
}
BNN_INLINE uint32_t v_level_of(double x, double levels) {
  double below = x < 1 ? x : 1, inside = below > 0 ? below : 0, big = 4503599627370496;
  return (uint32_t)(int32_t)(inside * levels + big - big);
}
BNN_INLINE vu32 v_level_f64(vf64 x, vf64 levels) {
  return (vu32){v_level_of(x.lane[0], levels.lane[0]), v_level_of(x.lane[1], levels.lane[1]),
                v_level_of(x.lane[2], levels.lane[2]), v_level_of(x.lane[3], levels.lane[3])};
}

/* ---- bytes and lanes out of order: the depthwise kernels -------------------------------------------------------- */

/* One byte for each bit of a word. */
typedef uint64_t v_octets __attribute__((vector_size(16)));
typedef uint8_t v_sixteen __attribute__((vector_size(16)));
typedef struct {
  v_sixteen low, high;
} vbytes;

BNN_INLINE vbytes v_no_bytes(void) { return (vbytes){{0}, {0}}; }
BNN_INLINE v_sixteen v_append_half(v_sixteen x, uint32_t bits) {
  const v_octets each = {UINT64_C(0x0101010101010101), UINT64_C(0x0101010101010101)};
  const v_octets digit = {UINT64_C(0x8040201008040201), UINT64_C(0x8040201008040201)};
  v_octets spread = (v_octets){bits & 0xff, bits >> 8 & 0xff} * each & digit;
  return x + x - (v_sixteen)((v_sixteen)spread != 0);
}
/* Twice byte i plus bit i: counts from their digits, the highest first. */
BNN_INLINE vbytes v_append_bits(vbytes x, uint32_t bits) {
  return (vbytes){v_append_half(x.low, bits), v_append_half(x.high, bits >> 16)};
}
BNN_INLINE void v_store_bytes(uint8_t *p, vbytes x) { __builtin_memcpy(p, &x, sizeof x); }
/* One lane for each byte. */
BNN_INLINE vu32 v_load_bytes(const uint8_t *p) { return (vu32){p[0], p[1], p[2], p[3]}; }
/* Lane i of the result is lane index[i] of x. */
BNN_INLINE vf32 v_pick_f32(vf32 x, vu32 index) {
  return (vf32){x[index[0] & 3], x[index[1] & 3], x[index[2] & 3], x[index[3] & 3]};
}

#endif
