/* Patches as rows of a matrix for BLAS, and back. */
#include "bnn.h"

#include <string.h>

/* Items run through an image's pixels in the order of the schedule, so their class is found by walking along. */
static const bnn_class *class_at(const bnn_class *class_, int64_t position) {
  while (position >= class_->first + class_->count) class_++;
  return class_;
}

/* Whether tap i of a class reads the pixel after the one that tap i - 1 reads, and goes where that ends. */
static int neighbours(const bnn_class *class_, int64_t i) {
  return i < class_->valid && class_->tap[i] == class_->tap[i - 1] + 1 &&
         class_->offset[i] == class_->offset[i - 1] + 1;
}

#define REAL float
#define OF(name) name##_f32
#include "im2col.h"
#undef REAL
#undef OF

#define REAL double
#define OF(name) name##_f64
#include "im2col.h"
