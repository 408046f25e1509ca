/* Target regions: what stands between BNN_TARGET_BEGIN and BNN_TARGET_END may use the given instruction sets, whatever
 * the flags of the compiler. System headers come before the region. */
#ifndef BNN_TARGET_H
#define BNN_TARGET_H

#if defined(__x86_64__)
#define BNN_X86 1
#else
#define BNN_X86 0
#endif

#if defined(__AARCH64EL__) /* every such machine has NEON */
#define BNN_NEON 1
#else
#define BNN_NEON 0
#endif

#define BNN_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define BNN_TARGET_BEGIN(features) \
  BNN_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define BNN_TARGET_END BNN_PRAGMA(clang attribute pop)
/* The iterations of the loop that follows are independent: in-place calls give equal pointers. A loop that calls a
 * function stays scalar all the same, which is no cause for a warning. */
#pragma clang diagnostic ignored "-Wpass-failed"
#define BNN_INDEPENDENT BNN_PRAGMA(clang loop vectorize(assume_safety))
/* The loop that follows has few iterations, whose number is a constant once the function is inlined. */
#define BNN_UNROLL BNN_PRAGMA(clang loop unroll(full))
#else
#define BNN_TARGET_BEGIN(features) BNN_PRAGMA(GCC push_options) BNN_PRAGMA(GCC target(features))
#define BNN_TARGET_END BNN_PRAGMA(GCC pop_options)
#define BNN_INDEPENDENT BNN_PRAGMA(GCC ivdep)
#define BNN_UNROLL BNN_PRAGMA(GCC unroll 16)
#endif

#define BNN_INLINE static inline __attribute__((always_inline, unused))
/* Called now and then from a loop whose registers it would take if it were inlined. */
#define BNN_APART static __attribute__((noinline))

#endif
