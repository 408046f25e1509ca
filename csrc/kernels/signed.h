/* float x bits: plain loops, one result at a time. */

static const bnn_class *signed_class(const bnn_product *p, int64_t position) {
  const bnn_class *class_ = p->schedule->class_;
  while (position >= class_->first + class_->count) class_++;
  return class_;
}

static int64_t signed_rows(const bnn_product *p) { return p->images * p->schedule->pixels; }

static size_t signed_right_scratch(const bnn_product *p) {
  (void)p;
  return 0;
}
static int64_t signed_right_items(const bnn_product *p) { return signed_rows(p); }
static void signed_right_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  (void)scratch;
  const bnn_schedule *s = p->schedule;
  int64_t words = bnn_words(p->depth), panels = bnn_panels(p->columns);
  for (int64_t item = begin; item < end; item++) {
    int64_t image = item / s->pixels, position = item % s->pixels;
    const bnn_class *class_ = signed_class(p, position);
    for (int64_t column = 0; column < p->groups * p->columns; column++) {
      int64_t group = column / p->columns, lane = column % p->columns;
      const uint32_t *right = (const uint32_t *)p->right +
                              (group * panels + lane / BNN_PANEL) * s->taps * words * BNN_PANEL + lane % BNN_PANEL;
      float sum = 0;
      for (int64_t i = 0; i < class_->valid + class_->padded; i++) {
        const float *left = i < class_->valid
                                ? (const float *)p->left +
                                      ((image * s->sources + s->base[position] + class_->offset[i]) * p->groups + group) *
                                          p->depth
                                : (const float *)p->constant;
        for (int64_t k = 0; k < p->depth; k++)
          sum += right[(class_->tap[i] * words + k / 32) * BNN_PANEL] >> k % 32 & 1 ? -left[k] : left[k];
      }
      ((float *)p->out)[(image * s->pixels + s->pixel[position]) * p->groups * p->columns + column] = sum;
    }
  }
}

static size_t signed_left_scratch(const bnn_product *p) {
  (void)p;
  return 0;
}
static int64_t signed_left_items(const bnn_product *p) { return signed_rows(p); }
static void signed_left_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  (void)scratch;
  const bnn_schedule *s = p->schedule;
  int64_t words = bnn_words(p->depth), row = p->groups * p->columns;
  for (int64_t item = begin; item < end; item++) {
    int64_t image = item / s->pixels, position = item % s->pixels;
    const bnn_class *class_ = signed_class(p, position);
    for (int64_t column = 0; column < row; column++) {
      float sum = 0;
      for (int64_t i = 0; i < class_->valid + class_->padded; i++) {
        const uint32_t *left =
            i < class_->valid ? (const uint32_t *)p->left +
                                    ((image * s->sources + s->base[position] + class_->offset[i]) * p->groups +
                                     column / p->columns) *
                                        words
                              : (const uint32_t *)p->constant;
        const float *right = (const float *)p->right + class_->tap[i] * p->depth * row + column;
        for (int64_t k = 0; k < p->depth; k++) sum += left[k / 32] >> k % 32 & 1 ? -right[k * row] : right[k * row];
      }
      ((float *)p->out)[(image * s->pixels + s->pixel[position]) * row + column] = sum;
    }
  }
}

static size_t signed_reduce_scratch(const bnn_product *p) {
  (void)p;
  return 0;
}
static int64_t signed_reduce_items(const bnn_product *p) { return p->schedule->taps * p->depth; }
static void signed_reduce_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  (void)scratch;
  const bnn_schedule *s = p->schedule;
  int64_t words = bnn_words(p->depth), row = p->groups * p->columns;
  float *out = p->out;
  for (int64_t i = begin * row; i < end * row; i++) out[i] = 0;
  for (int64_t image = 0; image < p->images; image++)
    for (int64_t position = 0; position < s->pixels; position++) {
      const bnn_class *class_ = signed_class(p, position);
      const float *dy = (const float *)p->right + (image * s->pixels + s->pixel[position]) * row;
      for (int64_t i = 0; i < class_->valid + class_->padded; i++)
        for (int64_t k = 0; k < p->depth; k++) {
          int64_t item = class_->tap[i] * p->depth + k;
          if (item < begin || item >= end) continue;
          for (int64_t column = 0; column < row; column++) {
            const uint32_t *left =
                i < class_->valid ? (const uint32_t *)p->left +
                                        ((image * s->sources + s->base[position] + class_->offset[i]) * p->groups +
                                         column / p->columns) *
                                            words
                                  : (const uint32_t *)p->constant;
            out[item * row + column] += left[k / 32] >> k % 32 & 1 ? -dy[column] : dy[column];
          }
        }
    }
}
