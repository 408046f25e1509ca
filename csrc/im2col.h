/* Included once per REAL by im2col.c; OF(name) is the name for that type. */

void OF(bnn_im2col)(const bnn_columns *c, int64_t begin, int64_t end) {
  const bnn_schedule *s = c->schedule;
  int64_t row = s->taps * c->depth;
  const bnn_class *class_ = s->class_;
  for (int64_t item = begin; item < end; item++) {
    int64_t image = item / s->pixels, position = item % s->pixels;
    class_ = class_at(position ? class_ : s->class_, position);
    for (int64_t group = 0; group < c->groups; group++) {
      const REAL *x = (const REAL *)c->x + (image * s->sources * c->groups + group) * c->depth;
      REAL *out = (REAL *)c->columns + ((group * c->images + image) * s->pixels + s->pixel[position]) * row;
      for (int64_t i = 0, run; i < class_->valid; i += run) {
        for (run = 1; c->groups == 1 && neighbours(class_, i + run); run++) continue;
        int64_t source = s->base[position] + class_->offset[i];
        memcpy(out + class_->tap[i] * c->depth, x + source * c->groups * c->depth,
               (size_t)(run * c->depth) * sizeof(REAL));
      }
      for (int64_t i = class_->valid; i < class_->valid + class_->padded; i++)
        for (int64_t k = 0; k < c->depth; k++) out[class_->tap[i] * c->depth + k] = (REAL)c->pad;
    }
  }
}

void OF(bnn_col2im)(const bnn_columns *c, int64_t begin, int64_t end) {
  const bnn_schedule *s = c->schedule;
  int64_t row = s->taps * c->depth;
  const bnn_class *class_ = s->class_;
  for (int64_t item = begin; item < end; item++) {
    int64_t image = item / s->pixels, position = item % s->pixels;
    class_ = class_at(position ? class_ : s->class_, position);
    for (int64_t group = 0; group < c->groups; group++) {
      const REAL *columns = (const REAL *)c->columns + (group * c->images + image) * s->sources * row;
      REAL *out = (REAL *)c->x + ((image * s->pixels + s->pixel[position]) * c->groups + group) * c->depth;
      for (int64_t k = 0; k < c->depth; k++) out[k] = 0;
      for (int64_t i = 0; i < class_->valid; i++) {
        const REAL *in = columns + (s->base[position] + class_->offset[i]) * row + class_->tap[i] * c->depth;
        for (int64_t k = 0; k < c->depth; k++) out[k] += in[k];
      }
    }
  }
}
