/* Positions of all images, one after another, in runs of one class that a constant step leads through. */

typedef struct {
  const bnn_class *class_;
  int64_t count;               /* positions */
  int64_t source, source_step; /* what the first position reads through an offset of zero, of all images */
  int64_t target, target_step; /* where its result goes */
} position_run;

/* The run that begins at `item`, a position of all images; at most `most` positions, and none from `end` on. */
static position_run position_next(const bnn_schedule *s, int64_t item, int64_t end, int64_t most) {
  int64_t image = item / s->pixels, at = item % s->pixels;
  const bnn_class *c = s->class_;
  while (at >= c->first + c->count) c++;
  const int32_t *base = s->base + at, *pixel = s->pixel + at;
  position_run run = {c, 1, image * s->sources + base[0], 1, image * s->pixels + pixel[0], 1};
  run.count = c->row - (at - c->first) % c->row;
  if (run.count > end - item) run.count = end - item;
  if (run.count > most) run.count = most;
  if (run.count > 1) {
    run.source_step = base[1] - base[0];
    run.target_step = pixel[1] - pixel[0];
  }
  return run;
}

static int64_t positions_of(const bnn_product *p) { return p->images * p->schedule->pixels; }

/* A kernel gradient is summed in so many parts, each with sums of its own that the caller adds up: their number depends
 * on nothing but the product. */
static int64_t position_parts(const bnn_product *p) {
  int64_t positions = positions_of(p), least = 4 * p->schedule->taps * p->depth;
  if (least < 64) least = 64; /* the sums of all parts are few beside dy */
  int64_t parts = positions / least;
  return parts < 1 ? 1 : parts < 64 ? parts : 64;
}
