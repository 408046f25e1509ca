/* From a geometry to its schedule: whether it is sound, and which pixels share which taps. */
#include "bnn.h"

#include <limits.h>
#include <stdlib.h>

/* ---- validation ------------------------------------------------------------------------------------------------ */

static int multiply(int64_t *product, int64_t factor) { return !__builtin_mul_overflow(*product, factor, product); }

/* The product of three sizes if it can number pixels or taps, else -1. */
static int64_t volume(const int64_t size[3]) {
  int64_t product = 1;
  for (int axis = 0; axis < 3; axis++)
    if (!multiply(&product, size[axis])) return -1;
  return product <= INT32_MAX ? product : -1;
}

const char *bnn_geometry_error(const bnn_geometry *g) {
  if (g->batch < 0) return "batch must not be negative";
  if (g->groups < 1) return "groups must be positive";
  if (g->channels < 0) return "channels must not be negative";
  if (g->filters < 0) return "filters must not be negative";
  if (g->channels % g->groups) return "groups must divide channels";
  if (g->filters % g->groups) return "groups must divide filters";
  for (int axis = 0; axis < 3; axis++) {
    if (g->in[axis] < 0 || g->in[axis] > INT32_MAX) return "input size is out of range";
    if (g->out[axis] < 0 || g->out[axis] > INT32_MAX) return "output size is out of range";
    if (g->kernel[axis] < 1 || g->kernel[axis] > INT32_MAX) return "kernel size must be positive";
    if (g->stride[axis] < 1 || g->stride[axis] > INT32_MAX) return "stride must be positive";
    if (g->dilation[axis] < 1 || g->dilation[axis] > INT32_MAX) return "dilation must be positive";
    if (g->pad[axis] < 0 || g->pad[axis] > INT32_MAX) return "padding must not be negative";
  }
  int64_t sources = volume(g->in), targets = volume(g->out), taps = volume(g->kernel);
  if (sources < 0) return "input has too many pixels";
  if (targets < 0) return "output has too many pixels";
  if (taps < 0) return "kernel has too many taps";

  int64_t wide = g->channels > g->filters ? g->channels : g->filters, sums = wide / g->groups;
  if (!multiply(&sums, taps) || sums > INT32_MAX) return "sums do not fit in 32 bits";
  int64_t weights = taps, image = sources > targets ? sources : targets;
  int fits = multiply(&weights, g->channels / g->groups + BNN_WORD) && multiply(&weights, g->filters + BNN_WORD) &&
             multiply(&weights, (int64_t)sizeof(double)) && multiply(&image, g->batch) &&
             multiply(&image, wide + BNN_WORD * g->groups) && multiply(&image, (int64_t)sizeof(double));
  /* The binding may still multiply by the taps for im2col, and checks that itself. */
  return fits ? NULL : "arrays are too large";
}

/* ---- schedule -------------------------------------------------------------------------------------------------- */

/* The taps a target reads along one axis are first, first + step, ... : `count` of them. Targets with equal
 * (first, count) form a class, and share their offsets from the source that the first tap reads. */
typedef struct {
  int64_t targets, sources, kernel, step;
  int64_t classes;
  int64_t *first, *count, *start; /* [classes]; targets start[c] .. start[c + 1] - 1 are those of class c */
  int32_t *target, *base;         /* [targets], class by class */
} axis_map;

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

/* The source that `tap` of `target` reads, or -1. */
static int64_t source_of(const bnn_geometry *g, int transposed, int axis, int64_t target, int64_t tap) {
  int64_t reach = tap * g->dilation[axis] - g->pad[axis];
  if (!transposed) {
    int64_t source = target * g->stride[axis] + reach;
    return source < g->in[axis] ? source : -1;
  }
  int64_t scaled = target - reach, source = scaled / g->stride[axis];
  return scaled >= 0 && source * g->stride[axis] == scaled && source < g->out[axis] ? source : -1;
}

/* How far tap index i of an axis class lies from its first tap, in sources. */
static int64_t axis_offset(const bnn_geometry *g, int transposed, int axis, int64_t step, int64_t i) {
  int64_t reach = i * step * g->dilation[axis];
  return transposed ? -reach / g->stride[axis] : reach;
}

static int map_axis(axis_map *map, const bnn_geometry *g, int transposed, int axis) {
  map->targets = transposed ? g->in[axis] : g->out[axis];
  map->sources = transposed ? g->out[axis] : g->in[axis];
  map->kernel = g->kernel[axis];
  map->step = transposed ? g->stride[axis] / gcd(g->stride[axis], g->dilation[axis]) : 1;
  map->classes = 0;
  size_t targets = (size_t)map->targets;
  map->first = malloc((3 * targets + 1) * sizeof(int64_t) + (4 * targets + 1) * sizeof(int32_t));
  if (!map->first) return 0;
  map->count = map->first + targets;
  map->start = map->count + targets; /* one more than classes */
  map->target = (int32_t *)(map->start + targets + 1);
  map->base = map->target + targets;
  int32_t *class_ = map->base + targets, *source_of_target = class_ + targets;

  int64_t stride = axis_offset(g, transposed, axis, map->step, 1), length = stride < 0 ? -stride : stride, last = 0;
  for (int64_t target = 0; target < map->targets; target++) {
    int64_t first = 0, count = 0, source = -1;
    while (first < map->kernel && (source = source_of(g, transposed, axis, target, first)) < 0) first++;
    if (source < 0) {
      first = source = 0;
    } else {
      int64_t room = stride < 0 ? source : map->sources - 1 - source, taps = map->kernel - 1 - first;
      if (map->step > 1) taps /= map->step;
      count = 1 + (taps * length <= room ? taps : room / length);
    }
    if (last >= map->classes || map->first[last] != first || map->count[last] != count)
      for (last = 0; last < map->classes; last++)
        if (map->first[last] == first && map->count[last] == count) break;
    if (last == map->classes) {
      map->first[last] = first;
      map->count[last] = count;
      map->start[last] = 0;
      map->classes++;
    }
    map->start[last]++;
    class_[target] = (int32_t)last;
    source_of_target[target] = (int32_t)source;
  }
  /* Sizes become ends, and these starts, as the targets are put in from the last to the first. */
  for (int64_t c = 1; c < map->classes; c++) map->start[c] += map->start[c - 1];
  map->start[map->classes] = map->targets;
  for (int64_t target = map->targets - 1; target >= 0; target--) {
    int64_t at = --map->start[class_[target]];
    map->target[at] = (int32_t)target;
    map->base[at] = source_of_target[target];
  }
  return 1;
}

/* Targets in a class of an axis. */
static int64_t axis_size(const axis_map *map, int64_t class_) { return map->start[class_ + 1] - map->start[class_]; }

/* Whether each is as far from the one before as the second is from the first. */
static int even(const int32_t *at, int64_t count) {
  int64_t i = 2;
  while (i < count && at[i] - at[i - 1] == at[1] - at[0]) i++;
  return i >= count;
}

bnn_schedule *bnn_schedule_make(const bnn_geometry *g, int transposed, int constant) {
  constant = constant && !transposed; /* what a stride skips is not padding */
  axis_map maps[3] = {{0}};
  bnn_schedule *schedule = NULL;
  for (int axis = 0; axis < 3; axis++)
    if (!map_axis(&maps[axis], g, transposed, axis)) goto done;

  const axis_map *z = &maps[0], *y = &maps[1], *x = &maps[2];
  int64_t pixels = z->targets * y->targets * x->targets, taps = volume(g->kernel);
  int64_t classes = z->classes, lists = constant ? taps : 1;
  int fits = multiply(&classes, y->classes) && multiply(&classes, x->classes);
  if (constant)
    fits = fits && multiply(&lists, classes);
  else
    for (int axis = 0; axis < 3; axis++) {
      int64_t sum = 0; /* of at most 2^31 counts below 2^31 */
      for (int64_t c = 0; c < maps[axis].classes; c++) sum += maps[axis].count[c];
      fits = fits && multiply(&lists, sum);
    }
  int64_t bytes = classes, list_bytes = lists;
  fits = fits && multiply(&bytes, (int64_t)sizeof(bnn_class)) && multiply(&list_bytes, 2 * (int64_t)sizeof(int32_t)) &&
         !__builtin_add_overflow(bytes, list_bytes, &bytes) &&
         !__builtin_add_overflow(bytes, (int64_t)sizeof(bnn_schedule) + 2 * (int64_t)sizeof(int32_t) * pixels, &bytes);
  if (!fits || (uint64_t)bytes > SIZE_MAX || !(schedule = malloc((size_t)bytes))) goto done;

  bnn_class *class_ = (bnn_class *)(schedule + 1);
  int32_t *pixel = (int32_t *)(class_ + classes), *base = pixel + pixels;
  int32_t *tap = base + pixels, *offset = tap + lists;
  *schedule = (bnn_schedule){.geometry = *g,
                             .transposed = transposed,
                             .pixels = pixels,
                             .sources = z->sources * y->sources * x->sources,
                             .taps = taps,
                             .classes = classes,
                             .class_ = class_,
                             .pixel = pixel,
                             .base = base};

  int64_t first = 0;
  for (int64_t cz = 0; cz < z->classes; cz++)
    for (int64_t cy = 0; cy < y->classes; cy++)
      for (int64_t cx = 0; cx < x->classes; cx++, class_++) {
        const int64_t count[3] = {z->count[cz], y->count[cy], x->count[cx]};
        const int64_t start[3] = {z->first[cz], y->first[cy], x->first[cx]};
        class_->first = first;
        class_->count = axis_size(z, cz) * axis_size(y, cy) * axis_size(x, cx);
        class_->valid = count[0] * count[1] * count[2];
        class_->padded = constant ? taps - class_->valid : 0;
        class_->tap = tap;
        class_->offset = offset;
        first += class_->count;

        for (int64_t i = 0; i < count[0]; i++)
          for (int64_t j = 0; j < count[1]; j++)
            for (int64_t k = 0; k < count[2]; k++) {
              int64_t oz = axis_offset(g, transposed, 0, z->step, i), oy = axis_offset(g, transposed, 1, y->step, j),
                      ox = axis_offset(g, transposed, 2, x->step, k);
              *tap++ = (int32_t)(((start[0] + i * z->step) * y->kernel + start[1] + j * y->step) * x->kernel +
                                 start[2] + k * x->step);
              *offset++ = (int32_t)((oz * y->sources + oy) * x->sources + ox);
            }
        if (class_->padded)
          for (int64_t i = 0; i < z->kernel; i++)
            for (int64_t j = 0; j < y->kernel; j++)
              for (int64_t k = 0; k < x->kernel; k++) {
                /* constant schedules run forward, where the step is one */
                int inside = class_->valid && i >= start[0] && i < start[0] + count[0] && j >= start[1] &&
                             j < start[1] + count[1] && k >= start[2] && k < start[2] + count[2];
                if (inside) continue;
                *tap++ = (int32_t)((i * y->kernel + j) * x->kernel + k);
                *offset++ = 0;
              }

        const int32_t *column = x->target + x->start[cx], *source = x->base + x->start[cx];
        int64_t columns = axis_size(x, cx);
        const int32_t *to_first = pixel, *from_first = base;
        for (int64_t i = z->start[cz]; i < z->start[cz + 1]; i++)
          for (int64_t j = y->start[cy]; j < y->start[cy + 1]; j++, pixel += columns, base += columns) {
            int32_t to = (int32_t)((z->target[i] * y->targets + y->target[j]) * x->targets);
            int32_t from = (int32_t)((z->base[i] * y->sources + y->base[j]) * x->sources);
            for (int64_t k = 0; k < columns; k++) {
              pixel[k] = to + column[k];
              base[k] = from + source[k];
            }
          }
        /* All of them, or a row of the image; at a border that is one of its columns. */
        const int64_t length[] = {class_->count, columns > 1 ? columns : axis_size(y, cy)};
        class_->row = 1;
        for (int i = 2; i--;)
          if (length[i] > 1 && even(to_first, length[i]) && even(from_first, length[i])) class_->row = length[i];
      }

done:
  for (int axis = 0; axis < 3; axis++) free(maps[axis].first);
  return schedule;
}
