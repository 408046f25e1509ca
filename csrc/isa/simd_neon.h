/* Four 32-bit lanes of AArch64. The primitives are described in simd_portable.h. */
#ifndef BNN_SIMD_NEON_H
#define BNN_SIMD_NEON_H

#define BNN_LANES 4
#define BNN_TILE_ROWS 2
#define BNN_TILE_VECTORS 4
#define BNN_REGISTERS 32
#define BNN_CARRY_LEVELS 0 /* CNT costs what an addition costs */
#define BNN_COUNT_ROOM 31

typedef uint32x4_t vu32;
typedef float32x4_t vf32;
typedef struct {
  float64x2_t low, high;
} vf64;
typedef uint32x4_t vmask; /* all ones where true */

/* ---- words ----------------------------------------------------------------------------------------------------- */

BNN_INLINE vu32 v_set(uint32_t x) { return vdupq_n_u32(x); }
BNN_INLINE vu32 v_load(const void *p) {
  vu32 x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
BNN_INLINE void v_store(void *p, vu32 x) { __builtin_memcpy(p, &x, sizeof x); }
BNN_INLINE vu32 v_load_part(const void *p, int64_t n) {
  vu32 x = vdupq_n_u32(0);
  __builtin_memcpy(&x, p, n < BNN_LANES ? (size_t)n * 4 : sizeof x);
  return x;
}
BNN_INLINE void v_store_part(void *p, vu32 x, int64_t n) {
  __builtin_memcpy(p, &x, n < BNN_LANES ? (size_t)n * 4 : sizeof x);
}
BNN_INLINE vu32 v_load_apart(const uint32_t *p, int64_t step, int64_t n) {
  return (vu32){p[0], n > 1 ? p[step] : 0, n > 2 ? p[2 * step] : 0, n > 3 ? p[3 * step] : 0};
}
BNN_INLINE vu32 v_and(vu32 a, vu32 b) { return vandq_u32(a, b); }
BNN_INLINE vu32 v_xor(vu32 a, vu32 b) { return veorq_u32(a, b); }
BNN_INLINE vu32 v_add(vu32 a, vu32 b) { return vaddq_u32(a, b); }
BNN_INLINE vu32 v_sub(vu32 a, vu32 b) { return vsubq_u32(a, b); }
BNN_INLINE vu32 v_mul(vu32 a, vu32 b) { return vmulq_u32(a, b); }
BNN_INLINE vu32 v_shift_left(vu32 x, int bits) { return vshlq_u32(x, vdupq_n_s32(bits)); }
BNN_INLINE vu32 v_shift_right(vu32 x, int bits) { return vshlq_u32(x, vdupq_n_s32(-bits)); }
BNN_INLINE vu32 v_xor3(vu32 a, vu32 b, vu32 c) { return veorq_u32(veorq_u32(b, c), a); }
BNN_INLINE vu32 v_xor_and(vu32 a, vu32 b, vu32 c) { return veorq_u32(a, vandq_u32(b, c)); }
BNN_INLINE vu32 v_and_xor(vu32 a, vu32 b, vu32 c) { return vandq_u32(a, veorq_u32(b, c)); }
BNN_INLINE vu32 v_carry(vu32 t, vu32 s, vu32 ones) { return vbslq_u32(t, vmvnq_u32(s), ones); }
BNN_INLINE vu32 v_count(vu32 x) { return vreinterpretq_u32_u8(vcntq_u8(vreinterpretq_u8_u32(x))); }
BNN_INLINE vu32 v_add_counts(vu32 a, vu32 b) {
  return vreinterpretq_u32_u8(vaddq_u8(vreinterpretq_u8_u32(a), vreinterpretq_u8_u32(b)));
}
BNN_INLINE vu32 v_widen_counts(vu32 x) { return vpaddlq_u16(vpaddlq_u8(vreinterpretq_u8_u32(x))); }

/* ---- floats ---------------------------------------------------------------------------------------------------- */

BNN_INLINE vf32 v_set_f32(float x) { return vdupq_n_f32(x); }
BNN_INLINE vf32 v_load_f32(const float *p) { return vld1q_f32(p); }
BNN_INLINE vf32 v_load_part_f32(const float *p, int64_t n) { return vreinterpretq_f32_u32(v_load_part(p, n)); }
BNN_INLINE void v_store_f32(float *p, vf32 x) { vst1q_f32(p, x); }
BNN_INLINE void v_store_part_f32(float *p, vf32 x, int64_t n) { v_store_part(p, vreinterpretq_u32_f32(x), n); }
BNN_INLINE vf32 v_add_f32(vf32 a, vf32 b) { return vaddq_f32(a, b); }
BNN_INLINE vf32 v_sub_f32(vf32 a, vf32 b) { return vsubq_f32(a, b); }
BNN_INLINE vf32 v_mul_f32(vf32 a, vf32 b) { return vmulq_f32(a, b); }
BNN_INLINE vf32 v_div_f32(vf32 a, vf32 b) { return vdivq_f32(a, b); }
BNN_INLINE vf32 v_fma_f32(vf32 a, vf32 b, vf32 c) { return vfmaq_f32(c, a, b); }
BNN_INLINE vf32 v_float(vu32 x) { return vcvtq_f32_s32(vreinterpretq_s32_u32(x)); }
BNN_INLINE vu32 v_load_i16(const int16_t *p) { return vreinterpretq_u32_s32(vmovl_s16(vld1_s16(p))); }
BNN_INLINE void v_store_i16(int16_t *p, vu32 x) { vst1_s16(p, vmovn_s32(vreinterpretq_s32_u32(x))); }
BNN_INLINE vu32 v_bits_of(vf32 x) { return vreinterpretq_u32_f32(x); }
BNN_INLINE vf32 v_as_float(vu32 x) { return vreinterpretq_f32_u32(x); }

BNN_INLINE vf64 v_set_f64(double x) { return (vf64){vdupq_n_f64(x), vdupq_n_f64(x)}; }
BNN_INLINE vf64 v_load_f64(const double *p) { return (vf64){vld1q_f64(p), vld1q_f64(p + 2)}; }
BNN_INLINE vf64 v_load_part_f64(const double *p, int64_t n) {
  double lane[BNN_LANES] = {0};
  __builtin_memcpy(lane, p, n < BNN_LANES ? (size_t)n * 8 : sizeof lane);
  return v_load_f64(lane);
}
BNN_INLINE void v_store_f64(double *p, vf64 x) {
  vst1q_f64(p, x.low);
  vst1q_f64(p + 2, x.high);
}
BNN_INLINE void v_store_part_f64(double *p, vf64 x, int64_t n) {
  double lane[BNN_LANES];
  v_store_f64(lane, x);
  __builtin_memcpy(p, lane, n < BNN_LANES ? (size_t)n * 8 : sizeof lane);
}

/* ---- masks ----------------------------------------------------------------------------------------------------- */

/* Two masks of two 64-bit lanes as one of four. */
BNN_INLINE vmask v_join(uint64x2_t low, uint64x2_t high) { return vcombine_u32(vmovn_u64(low), vmovn_u64(high)); }
BNN_INLINE vmask v_less_f32(vf32 a, vf32 b) { return vcltq_f32(a, b); }
BNN_INLINE vmask v_within_f32(vf32 x, vf32 limit) { return vcleq_f32(vabsq_f32(x), limit); }
BNN_INLINE vmask v_nan_f32(vf32 x) { return vmvnq_u32(vceqq_f32(x, x)); }
BNN_INLINE vmask v_less_f64(vf64 a, vf64 b) { return v_join(vcltq_f64(a.low, b.low), vcltq_f64(a.high, b.high)); }
BNN_INLINE vmask v_within_f64(vf64 x, vf64 limit) {
  return v_join(vcleq_f64(vabsq_f64(x.low), limit.low), vcleq_f64(vabsq_f64(x.high), limit.high));
}
BNN_INLINE vmask v_nan_f64(vf64 x) { return vmvnq_u32(v_join(vceqq_f64(x.low, x.low), vceqq_f64(x.high, x.high))); }

BNN_INLINE vmask v_mask_none(void) { return vdupq_n_u32(0); }
BNN_INLINE vmask v_mask_or(vmask a, vmask b) { return vorrq_u32(a, b); }
BNN_INLINE vmask v_mask_without(vmask a, vmask b) { return vbicq_u32(a, b); }
BNN_INLINE vu32 v_lane_bits(void) {
  static const uint32_t bit[BNN_LANES] = {1, 2, 4, 8};
  return vld1q_u32(bit);
}
BNN_INLINE uint32_t v_mask_bits(vmask m) { return vaddvq_u32(vandq_u32(m, v_lane_bits())); }
BNN_INLINE vmask v_mask_of(uint32_t bits) { return vtstq_u32(v_set(bits), v_lane_bits()); }
BNN_INLINE vmask v_test(vu32 x, vu32 bit) { return vtstq_u32(x, bit); }
BNN_INLINE vu32 v_or_where(vu32 x, vmask m, vu32 bit) { return vorrq_u32(x, vandq_u32(m, bit)); }
BNN_INLINE vf32 v_choose_f32(vmask m, vf32 yes, vf32 no) { return vbslq_f32(m, yes, no); }
BNN_INLINE uint64x2_t v_widen_mask(uint32x2_t m) { return vreinterpretq_u64_s64(vmovl_s32(vreinterpret_s32_u32(m))); }
BNN_INLINE vf64 v_add_f64(vf64 a, vf64 b) { return (vf64){vaddq_f64(a.low, b.low), vaddq_f64(a.high, b.high)}; }
BNN_INLINE vf64 v_choose_f64(vmask m, vf64 yes, vf64 no) {
  return (vf64){vbslq_f64(v_widen_mask(vget_low_u32(m)), yes.low, no.low),
                vbslq_f64(v_widen_mask(vget_high_u32(m)), yes.high, no.high)};
}

BNN_INLINE vu32 v_level_f32(vf32 x, vf32 levels) {
  vf32 inside = vmaxnmq_f32(vminnmq_f32(x, vdupq_n_f32(1)), vdupq_n_f32(0));
  return vcvtnq_u32_f32(vmulq_f32(inside, levels));
}
BNN_INLINE uint32x2_t v_level_two(float64x2_t x, float64x2_t levels) {
  float64x2_t inside = vmaxnmq_f64(vminnmq_f64(x, vdupq_n_f64(1)), vdupq_n_f64(0));
  return vmovn_u64(vcvtnq_u64_f64(vmulq_f64(inside, levels)));
}
BNN_INLINE vu32 v_level_f64(vf64 x, vf64 levels) {
  return vcombine_u32(v_level_two(x.low, levels.low), v_level_two(x.high, levels.high));
}

/* ---- bytes and lanes out of order: the depthwise kernels -------------------------------------------------------- */

typedef uint8x16x2_t vbytes;

BNN_INLINE vbytes v_no_bytes(void) { return (vbytes){{vdupq_n_u8(0), vdupq_n_u8(0)}}; }
BNN_INLINE uint8x16_t v_append_half(uint8x16_t x, uint32_t bits) {
  const uint8x16_t digit = vreinterpretq_u8_u64(vdupq_n_u64(UINT64_C(0x8040201008040201)));
  uint8x16_t spread = vcombine_u8(vdup_n_u8((uint8_t)bits), vdup_n_u8((uint8_t)(bits >> 8)));
  return vsubq_u8(vaddq_u8(x, x), vtstq_u8(spread, digit));
}
BNN_INLINE vbytes v_append_bits(vbytes x, uint32_t bits) {
  return (vbytes){{v_append_half(x.val[0], bits), v_append_half(x.val[1], bits >> 16)}};
}
BNN_INLINE void v_store_bytes(uint8_t *p, vbytes x) {
  vst1q_u8(p, x.val[0]);
  vst1q_u8(p + 16, x.val[1]);
}
BNN_INLINE vu32 v_load_bytes(const uint8_t *p) {
  uint32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes)))));
}
BNN_INLINE vf32 v_pick_f32(vf32 x, vu32 index) {
  vu32 bytes = vmlaq_n_u32(vdupq_n_u32(0x03020100), index, 0x04040404);
  return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(x), vreinterpretq_u8_u32(bytes)));
}

#endif
