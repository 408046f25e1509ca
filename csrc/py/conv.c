/* Packing, preparing and products: arrays -> geometry -> schedule -> kernel. Nothing here computes. */
#include "module.h"

#include <stdlib.h>
#include <string.h>

#include "../threads.h"
#include "check.h"
#include "run.h"

#define PARSE(format, ...) PyArg_ParseTupleAndKeywords(args, keywords, format, names, __VA_ARGS__)

static int64_t volume(const int64_t size[3]) { return size[0] * size[1] * size[2]; }

/* An empty array, or zeros where no kernel will write. */
static PyArrayObject *new_array(const char *function, int axes, const int64_t *lengths, int type, int zeros) {
  int64_t count;
  npy_intp shape[NPY_MAXDIMS];
  if (axes > NPY_MAXDIMS) {
    PyErr_Format(PyExc_ValueError, "%s(): the result would have %d axes, NumPy allows %d", function, axes, NPY_MAXDIMS);
    return NULL;
  }
  if (check_count(function, axes, lengths, &count) < 0) return NULL;
  for (int i = 0; i < axes; i++) shape[i] = (npy_intp)lengths[i];
  return memory_array(axes, shape, type, zeros);
}

/* The items before, along and behind one axis of `shape`. */
static void around(const npy_intp *shape, int axes, int axis, int64_t *outer, int64_t *inner) {
  *outer = *inner = 1;
  for (int i = 0; i < axes; i++)
    if (i != axis) *(i < axis ? outer : inner) *= shape[i];
}

/* ---- packing --------------------------------------------------------------------------------------------------- */

/* What pack's `kind` and `parameter` say. */
static int read_packing(PyObject *kind, PyObject *parameter, bnn_pack *pack) {
  static const char *const kinds[] = {"sign", "unit", "ternary", "levels", NULL}; /* in the order of bnn_packing */
  int choice = BNN_PACK_SIGN;
  if (kind && check_choice("pack", "kind", kind, kinds, &choice) < 0) return -1;
  if (parameter && check_float("pack", "parameter", parameter, &pack->parameter) < 0) return -1;
  pack->packing = (bnn_packing)choice;
  pack->planes = choice == BNN_PACK_TERNARY ? 2 : 1;
  if (choice == BNN_PACK_TERNARY && !(pack->parameter >= 0)) {
    check_raise(PyExc_ValueError, "pack", "parameter", parameter, "a threshold >= 0");
    return -1;
  }
  if (choice != BNN_PACK_LEVELS) return 0;
  for (; pack->planes <= BNN_PLANES; pack->planes++)
    if (pack->parameter == (double)((1 << pack->planes) - 1)) return 0;
  check_raise(PyExc_ValueError, "pack", "parameter", parameter ? parameter : Py_None,
              "2**k - 1 for levels of k bits, 1 to 16");
  return -1;
}

/* The same values with the packed axis where the strides have it, or NULL. Words have it last in any case, so an array
 * that is contiguous but for the place of this axis, as a transposed matrix is, need not be copied, and others are
 * copied in the order of their memory. */
static PyObject *place_axis(PyArrayObject *x, int *axis) {
  npy_intp order[NPY_MAXDIMS];
  PyArray_Dims permutation = {order, PyArray_NDIM(x)};
  int place = 0, others = 0;
  for (int i = 0; i < permutation.len; i++) place += llabs(PyArray_STRIDE(x, i)) > llabs(PyArray_STRIDE(x, *axis));
  for (int i = 0; i < permutation.len; i++)
    if (i != *axis) order[others + (others >= place)] = i, others++;
  order[place] = *axis;
  *axis = place;
  return PyArray_Transpose(x, &permutation);
}

static PyObject *pack(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "axis", "clip", "kind", "parameter", NULL};
  PyObject *x_arg, *axis_arg, *clip_arg, *kind_arg = NULL, *parameter_arg = NULL, *result = NULL;
  if (!PARSE("OOO|OO:pack", &x_arg, &axis_arg, &clip_arg, &kind_arg, &parameter_arg)) return NULL;
  bnn_pack pack = {0};
  if (read_packing(kind_arg, parameter_arg, &pack) < 0) return NULL;
  PyArrayObject *x = NULL, *words = NULL, *mask = NULL;
  int axis, nan, masked = clip_arg != Py_None;
  if (PyArray_CheckExact(x_arg) && !PyArray_IS_C_CONTIGUOUS((PyArrayObject *)x_arg)) {
    if (check_axis("pack", axis_arg, PyArray_NDIM((PyArrayObject *)x_arg), &axis) < 0) return NULL;
    PyObject *placed = place_axis((PyArrayObject *)x_arg, &axis);
    x = placed ? check_real("pack", "x", placed) : NULL;
    Py_XDECREF(placed);
  } else {
    x = check_real("pack", "x", x_arg);
    if (x && check_axis("pack", axis_arg, PyArray_NDIM(x), &axis) < 0) goto done;
  }
  if (!x) goto done;
  if (masked && check_float("pack", "clip", clip_arg, &pack.clip) < 0) goto done;

  int axes = PyArray_NDIM(x);
  int64_t lengths[NPY_MAXDIMS + 1] = {pack.planes}, *length = lengths + 1;
  for (int i = 0; i < axes; i++)
    if (i != axis) *length++ = PyArray_DIM(x, i);
  *length = bnn_words(PyArray_DIM(x, axis));
  words = new_array("pack", axes + 1, lengths, NPY_UINT32, 0);
  mask = masked && words ? new_array("pack", axes, lengths + 1, NPY_UINT32, 0) : NULL;
  if (!words || (masked && !mask)) goto done;

  pack.x = PyArray_DATA(x);
  pack.count = PyArray_DIM(x, axis);
  pack.words = PyArray_DATA(words);
  pack.mask = mask ? PyArray_DATA(mask) : NULL;
  around(PyArray_DIMS(x), axes, axis, &pack.outer, &pack.inner);
  Py_BEGIN_ALLOW_THREADS;
  nan = run_pack(kernels_of(self), PyArray_TYPE(x) == NPY_FLOAT64, &pack);
  Py_END_ALLOW_THREADS;
  result = Py_BuildValue("OOO", words, mask ? (PyObject *)mask : Py_None, nan ? Py_True : Py_False);

done:
  Py_XDECREF(x);
  Py_XDECREF(words);
  Py_XDECREF(mask);
  return result;
}

static PyObject *unpack(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"words", "count", "axis", "dtype", NULL};
  PyObject *words_arg, *count_arg, *axis_arg, *dtype_arg = NULL;
  if (!PARSE("OOO|O:unpack", &words_arg, &count_arg, &axis_arg, &dtype_arg)) return NULL;
  PyArrayObject *words = check_array("unpack", "words", words_arg, NPY_UINT32), *out = NULL;
  int64_t count;
  int axis, type = NPY_FLOAT32;
  if (!words || check_int("unpack", "count", count_arg, 0, PTRDIFF_MAX / 64, &count) < 0) goto done;
  if (check_shape("unpack", "words", words,
                  &(check_shape_of){.middle = CHECK_ANY, .sizes = 1, .size = {bnn_words(count)}}) < 0)
    goto done;
  int axes = PyArray_NDIM(words);
  if (check_axis("unpack", axis_arg, axes, &axis) < 0) goto done;
  if (dtype_arg && check_dtype("unpack", dtype_arg, (int[]){NPY_FLOAT32, NPY_FLOAT64, NPY_NOTYPE}, &type) < 0)
    goto done;

  int64_t lengths[NPY_MAXDIMS];
  for (int i = 0; i < axes; i++) lengths[i] = i == axis ? count : PyArray_DIM(words, i < axis ? i : i - 1);
  out = new_array("unpack", axes, lengths, type, 0);
  if (!out) goto done;
  bnn_unpack unpack = {.words = PyArray_DATA(words), .count = count, .out = PyArray_DATA(out)};
  around(PyArray_DIMS(out), axes, axis, &unpack.outer, &unpack.inner);
  Py_BEGIN_ALLOW_THREADS;
  run_unpack(kernels_of(self), type == NPY_FLOAT64, &unpack);
  Py_END_ALLOW_THREADS;

done:
  Py_XDECREF(words);
  return (PyObject *)out;
}

static PyObject *select_(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"dy", "mask", "axis", "out", "add", NULL};
  PyObject *dy_arg, *mask_arg, *axis_arg, *out_arg = NULL;
  int add = 0;
  if (!PARSE("OOO|Op:select", &dy_arg, &mask_arg, &axis_arg, &out_arg, &add)) return NULL;
  PyArrayObject *dy = check_real("select", "dy", dy_arg), *mask = NULL, *out = NULL;
  int axis;
  if (!dy || !(mask = check_array("select", "mask", mask_arg, NPY_UINT32))) goto done;
  int axes = PyArray_NDIM(dy), kept = 0;
  if (check_axis("select", axis_arg, axes, &axis) < 0) goto done;
  npy_intp packed[NPY_MAXDIMS];
  for (int i = 0; i < axes; i++)
    if (i != axis) packed[kept++] = PyArray_DIM(dy, i);
  packed[kept] = (npy_intp)bnn_words(PyArray_DIM(dy, axis));
  if (check_exact_shape("select", "mask", mask, axes, packed) < 0) goto done;

  out = check_out("select", "out", out_arg, axes, PyArray_DIMS(dy), PyArray_TYPE(dy));
  if (!out) goto done;
  bnn_unpack select = {.words = PyArray_DATA(mask),
                       .dy = PyArray_DATA(dy),
                       .count = PyArray_DIM(dy, axis),
                       .out = PyArray_DATA(out),
                       .add = add && out_arg && out_arg != Py_None};
  around(PyArray_DIMS(dy), axes, axis, &select.outer, &select.inner);
  Py_BEGIN_ALLOW_THREADS;
  run_unpack(kernels_of(self), PyArray_TYPE(dy) == NPY_FLOAT64, &select);
  Py_END_ALLOW_THREADS;

done:
  Py_XDECREF(dy);
  Py_XDECREF(mask);
  return (PyObject *)out;
}

static PyObject *all_set(PyObject *self, PyObject *args) {
  PyObject *words_arg, *count_arg;
  if (!PyArg_ParseTuple(args, "OO:all_set", &words_arg, &count_arg)) return NULL;
  PyArrayObject *words = check_array("all_set", "words", words_arg, NPY_UINT32);
  PyObject *result = NULL;
  int64_t count;
  if (words && check_int("all_set", "count", count_arg, 0, PTRDIFF_MAX / 64, &count) == 0 &&
      check_shape("all_set", "words", words,
                  &(check_shape_of){.middle = CHECK_ANY, .sizes = 1, .size = {bnn_words(count)}}) == 0) {
    int64_t rows = count ? PyArray_SIZE(words) / bnn_words(count) : 0;
    int all;
    Py_BEGIN_ALLOW_THREADS;
    all = kernels_of(self)->all_set(PyArray_DATA(words), rows, count);
    Py_END_ALLOW_THREADS;
    result = PyBool_FromLong(all);
  }
  Py_XDECREF(words);
  return result;
}

/* ---- right operands -------------------------------------------------------------------------------------------- */

/* A uint8 vector on a BNN_ALIGN boundary. */
static PyArrayObject *new_blob(int64_t bytes) {
  npy_intp length = (npy_intp)bytes, padded = length + BNN_ALIGN - 1;
  PyObject *base = PyArray_EMPTY(1, &padded, NPY_UINT8, 0);
  if (!base) return NULL;
  char *data = PyArray_BYTES((PyArrayObject *)base);
  data += (BNN_ALIGN - (uintptr_t)data % BNN_ALIGN) % BNN_ALIGN;
  PyObject *blob = PyArray_SimpleNewFromData(1, &length, NPY_UINT8, data);
  if (!blob) {
    Py_DECREF(base);
    return NULL;
  }
  if (PyArray_SetBaseObject((PyArrayObject *)blob, base) < 0) {
    Py_DECREF(blob);
    return NULL;
  }
  return (PyArrayObject *)blob;
}

/* Whether the blob of these weights can be addressed, however a level rounds its lanes. */
static int check_weights(const char *function, const bnn_weights *w) {
  int64_t size,
      factor[] = {w->planes, w->taps, w->groups, w->channels / w->groups + 4096, w->filters / w->groups + 4096};
  return check_count(function, 5, factor, &size);
}

static PyObject *prepare(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"words", "groups", "channels", "transposed", NULL};
  PyObject *words_arg, *groups_arg, *channels_arg, *transposed_arg;
  if (!PARSE("OOOO:prepare", &words_arg, &groups_arg, &channels_arg, &transposed_arg)) return NULL;
  const bnn_kernels *kernels = kernels_of(self);
  PyArrayObject *words = check_array("prepare", "words", words_arg, NPY_UINT32), *blob = NULL;
  bnn_weights weights = {.transposed = PyObject_IsTrue(transposed_arg)};
  if (!words || weights.transposed < 0) goto done;
  if (check_int("prepare", "groups", groups_arg, 1, INT32_MAX, &weights.groups) < 0) goto done;
  if (check_int("prepare", "channels", channels_arg, 0, INT32_MAX, &weights.channels) < 0) goto done;
  if (weights.channels % weights.groups) {
    check_raise(PyExc_ValueError, "prepare", "channels", channels_arg, "divisible by groups");
    goto done;
  }
  check_shape_of shape = {.has_first = 1,
                          .first = CHECK_ANY,
                          .middle = CHECK_ANY,
                          .sizes = 2,
                          .size = {CHECK_ANY, bnn_words(weights.channels / weights.groups)}};
  if (check_shape("prepare", "words", words, &shape) < 0) goto done;
  int axes = PyArray_NDIM(words);
  weights.planes = PyArray_DIM(words, 0);
  weights.filters = PyArray_DIM(words, axes - 2);
  if (weights.filters % weights.groups) {
    check_raise(PyExc_ValueError, "prepare", "groups", groups_arg, "a divisor of the filters");
    goto done;
  }
  int64_t taps[NPY_MAXDIMS];
  for (int i = 1; i < axes - 2; i++) taps[i - 1] = PyArray_DIM(words, i);
  if (check_count("prepare", axes - 3, taps, &weights.taps) < 0 || check_weights("prepare", &weights) < 0) goto done;

  blob = new_blob((int64_t)kernels->prepared_size(&weights));
  if (!blob) goto done;
  Py_BEGIN_ALLOW_THREADS;
  kernels->prepare(&weights, PyArray_DATA(words), PyArray_DATA(blob));
  Py_END_ALLOW_THREADS;

done:
  Py_XDECREF(words);
  return (PyObject *)blob;
}

/* ---- products -------------------------------------------------------------------------------------------------- */

#define ANY_PLANES 0

/* A product being called. A transposed one runs from the geometry's outputs to its inputs. */
typedef struct {
  const char *function;
  const bnn_kernels *kernels;
  bnn_geometry geometry;
  int transposed, packed; /* packed: the left operand is bits */
  int by_group;           /* order of the result of signed_reduce */
  int few;                /* most of the floats of a signed product are zero */
  double pad;
  bnn_kind left_kind, right_kind;
  int left_planes, right_planes;                    /* left: or ANY_PLANES until the operand has been read */
  int64_t sources, pixels, taps, channels, filters; /* channels and filters as this product sees them, of all groups */
  PyArrayObject *left, *right, *out;
} call;

static int call_begin(call *c, const char *function, PyObject *self, PyObject *geometry, PyObject *pad, int transposed,
                      int packed) {
  bnn_geometry *g = &c->geometry;
  *c = (call){.function = function,
              .kernels = kernels_of(self),
              .transposed = transposed,
              .packed = packed,
              .left_planes = 1,
              .right_planes = 1};
  if (transposed < 0 || check_geometry(function, geometry, g) < 0) return -1;
  if ((packed ? check_sign_pad(function, pad, &c->pad) : check_float(function, "pad", pad, &c->pad)) < 0) return -1;
  if (transposed && c->pad != 0) {
    check_raise(PyExc_ValueError, function, "pad", pad, "0 where transposed, which reads no padding");
    return -1;
  }
  c->sources = volume(transposed ? g->out : g->in);
  c->pixels = volume(transposed ? g->in : g->out);
  c->channels = transposed ? g->filters : g->channels;
  c->filters = transposed ? g->channels : g->filters;
  c->taps = volume(g->kernel);
  return 0;
}

/* As many planes as an array of words holds, if a kernel takes so many. */
static int planes_of(PyArrayObject *words) {
  npy_intp planes = PyArray_NDIM(words) ? PyArray_DIM(words, 0) : 0;
  return planes < 1 ? 1 : planes > BNN_PLANES ? BNN_PLANES : (int)planes;
}

/* The left operand: words with `left_planes` planes, or floats. */
static int call_left(call *c, PyObject *x) {
  int64_t last = c->packed ? bnn_words(c->channels) : c->channels;
  c->left = check_array(c->function, "x", x, c->packed ? NPY_UINT32 : NPY_FLOAT32);
  if (!c->left) return -1;
  if (c->left_planes == ANY_PLANES) c->left_planes = planes_of(c->left);
  check_shape_of shape = {.has_first = c->packed,
                          .first = c->left_planes,
                          .middle = c->geometry.batch * c->sources,
                          .sizes = 1,
                          .size = {last}};
  return check_shape(c->function, "x", c->left, &shape);
}

static int call_prepared(call *c, PyObject *right) {
  const bnn_geometry *g = &c->geometry;
  bnn_weights weights = {c->right_planes, c->taps, g->groups, g->channels, g->filters, c->transposed};
  if (check_weights(c->function, &weights) < 0) return -1;
  npy_intp size = (npy_intp)c->kernels->prepared_size(&weights);
  c->right = check_array(c->function, "right", right, NPY_UINT8);
  return c->right ? check_exact_shape(c->function, "right", c->right, 1, &size) : -1;
}

/* Whether nothing is summed, so that no kernel runs. */
static int call_empty(const call *c) {
  return c->geometry.batch == 0 || c->pixels == 0 || c->channels == 0 || c->filters == 0;
}

/* Where every pixel reads itself alone, pixels are as good as images, and the schedule of one is soon made. */
static bnn_geometry pixels_as_images(const bnn_geometry *g) {
  bnn_geometry alone = *g;
  for (int axis = 0; axis < 3; axis++) {
    if (g->kernel[axis] != 1 || g->stride[axis] != 1 || g->pad[axis] || g->in[axis] != g->out[axis]) return *g;
    alone.batch *= g->in[axis];
    alone.in[axis] = alone.out[axis] = 1;
  }
  return alone;
}

static void *constant_row(const call *c, int64_t depth) {
  if (c->packed) {
    int64_t words = bnn_words(depth);
    uint32_t *row = run_alloc(4 * words);
    if (!row) return NULL;
    memset(row, c->pad < 0 ? 0xff : 0, 4 * (size_t)words);
    if (c->pad < 0 && depth % BNN_WORD) row[words - 1] = (1u << depth % BNN_WORD) - 1;
    return row;
  }
  float *row = run_alloc(4 * depth);
  for (int64_t i = 0; row && i < depth; i++) row[i] = (float)c->pad;
  return row;
}

/* Without the GIL. -1 when memory is short. A result in parts has `length` floats. */
static int call_product(const call *c, const bnn_kernel *kernel, bnn_product *product, int64_t length, double work) {
  int64_t count = kernel->parts ? kernel->parts(product) : 1;
  void *out = product->out, *parts = NULL;
  if (count > 1 && !(product->out = parts = run_alloc(4 * count * length))) return -1;
  int status = run_product(kernel, product, work);
  if (parts && status == 0) run_sum_parts(c->kernels, parts, count, length, out);
  free(parts);
  return status;
}

static bnn_type type_of(PyArrayObject *out) {
  int type = PyArray_TYPE(out);
  return type == NPY_FLOAT32 ? BNN_FLOAT32 : type == NPY_INT16 ? BNN_INT16 : BNN_INT32;
}

/* Without the GIL, too. */
static int call_run(const call *c, const bnn_kernel *kernel) {
  int bits = kernel == &c->kernels->xnor;
  bnn_geometry geometry = bits ? pixels_as_images(&c->geometry) : c->geometry, *g = &geometry;
  int64_t depth = c->channels / g->groups, columns = c->filters / g->groups, rows = c->geometry.batch * c->sources;
  int split = c->packed && g->groups > 1 && depth % BNN_WORD;
  const void *right = PyArray_DATA(c->right);
  void *constant = NULL, *groups = NULL, *aligned = NULL;
  int status = -1;
  bnn_schedule *schedule = bnn_schedule_make(g, c->transposed, c->pad != 0);
  if (!schedule) return -1;
  if (c->pad != 0 && !bits && !(constant = constant_row(c, depth))) goto done;
  if (split) {
    groups = run_alloc(4 * c->left_planes * rows * g->groups * bnn_words(depth));
    if (!groups) goto done;
    run_split_groups(c->kernels, PyArray_DATA(c->left), c->left_planes * rows, c->channels, g->groups, groups);
  }
  if (PyArray_TYPE(c->right) == NPY_UINT8 && (uintptr_t)right % BNN_ALIGN) {
    aligned = run_alloc(PyArray_SIZE(c->right));
    if (!aligned) goto done;
    right = memcpy(aligned, right, (size_t)PyArray_SIZE(c->right));
  }
  bnn_product product = {.schedule = schedule,
                         .images = g->batch,
                         .groups = g->groups,
                         .depth = depth,
                         .columns = columns,
                         .left = split ? groups : PyArray_DATA(c->left),
                         .right = right,
                         .constant = constant,
                         .out = PyArray_DATA(c->out),
                         .by_group = c->by_group,
                         .few = c->few,
                         .out_type = type_of(c->out),
                         .left_kind = c->left_kind,
                         .right_kind = c->right_kind,
                         .left_planes = c->left_planes,
                         .right_planes = c->right_planes,
                         .pad = (int)c->pad};
  double work = (double)c->geometry.batch * (double)c->pixels * (double)c->taps * (double)c->filters *
                (double)(bits ? c->left_planes * c->right_planes * bnn_words(depth) : depth);
  status = call_product(c, kernel, &product, c->taps * depth * c->filters, work);

done:
  free(schedule);
  free(constant);
  free(groups);
  free(aligned);
  return status;
}

static PyObject *call_end(call *c, int status) {
  if (c->out && status < 0) {
    PyErr_NoMemory();
    Py_CLEAR(c->out);
  }
  Py_XDECREF(c->left);
  Py_XDECREF(c->right);
  return (PyObject *)c->out;
}

/* Allocate the result unless there is one, run the kernel, and let go of the operands. */
static PyObject *call_finish(call *c, const bnn_kernel *kernel, const int64_t *lengths, int type) {
  int status = 0, empty = call_empty(c);
  if (c->out && empty)
    memset(PyArray_DATA(c->out), 0, (size_t)PyArray_NBYTES(c->out));
  else if (!c->out)
    c->out = new_array(c->function, 3, lengths, type, empty);
  if (c->out && !empty) {
    Py_BEGIN_ALLOW_THREADS;
    status = call_run(c, kernel);
    Py_END_ALLOW_THREADS;
  }
  return call_end(c, status);
}

static PyObject *call_forward(call *c, const bnn_kernel *kernel, int type) {
  return call_finish(c, kernel, (int64_t[]){c->geometry.batch, c->pixels, c->filters}, type);
}

static int read_kind(const char *function, const char *argument, PyObject *value, bnn_kind *kind) {
  static const char *const kinds[] = {"sign", "unit", "ternary", NULL}; /* in the order of bnn_kind */
  int choice = BNN_SIGN;
  if (value && check_choice(function, argument, value, kinds, &choice) < 0) return -1;
  *kind = (bnn_kind)choice;
  return 0;
}

/* Ternary operands have two planes, of the others x says how many, and for the blob the caller does. */
static int read_kinds(call *c, PyObject *left, PyObject *right, PyObject *right_planes) {
  if (read_kind("xnor", "left", left, &c->left_kind) < 0 || read_kind("xnor", "right_kind", right, &c->right_kind) < 0)
    return -1;
  int64_t ternary = c->right_kind == BNN_TERNARY, planes = ternary ? 2 : 1;
  if (right_planes &&
      check_int("xnor", "right_planes", right_planes, ternary ? 2 : 1, ternary ? 2 : BNN_PLANES, &planes) < 0)
    return -1;
  c->left_planes = c->left_kind == BNN_TERNARY ? 2 : ANY_PLANES;
  c->right_planes = (int)planes;
  return 0;
}

/* Whether every sum and every coefficient in it fits int32, and the sums what they are asked for as. */
static int check_sums(const call *c, int type) {
  int64_t terms, factor[] = {c->taps, c->channels / c->geometry.groups, (int64_t)1 << c->left_planes,
                             (int64_t)1 << c->right_planes};
  if (check_count(c->function, 4, factor, &terms) < 0) return -1;
  int64_t largest = factor[0] * factor[1] * (factor[2] - 1) * (factor[3] - 1);
  if (terms <= INT32_MAX && (type != NPY_INT16 || largest <= INT16_MAX)) return 0;
  PyErr_Format(PyExc_ValueError, "%s(): the sums of %lld products of %d and %d planes exceed %s: split the planes",
               c->function, (long long)(factor[0] * factor[1]), c->left_planes, c->right_planes,
               type == NPY_INT16 ? "int16" : "int32");
  return -1;
}

static PyObject *xnor(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x",     "right", "geometry",   "pad",          "transposed",
                          "dtype", "left",  "right_kind", "right_planes", NULL};
  PyObject *x, *right, *geometry, *pad, *transposed, *dtype, *left_kind = NULL, *right_kind = NULL, *planes = NULL;
  if (!PARSE("OOOOOO|OOO:xnor", &x, &right, &geometry, &pad, &transposed, &dtype, &left_kind, &right_kind, &planes))
    return NULL;
  call c;
  int type;
  if (call_begin(&c, "xnor", self, geometry, pad, PyObject_IsTrue(transposed), 1) < 0 ||
      check_dtype("xnor", dtype, (int[]){NPY_INT32, NPY_FLOAT32, NPY_INT16, NPY_NOTYPE}, &type) < 0 ||
      read_kinds(&c, left_kind, right_kind, planes) < 0 || call_left(&c, x) < 0 || call_prepared(&c, right) < 0 ||
      check_sums(&c, type) < 0)
    return call_end(&c, 0);
  return call_forward(&c, &c.kernels->xnor, type);
}

/* A result that the caller gives. */
static int call_out(call *c, PyObject *out) {
  npy_intp shape[] = {(npy_intp)c->geometry.batch, (npy_intp)c->pixels, (npy_intp)c->filters};
  return (c->out = check_out(c->function, "out", out, 3, shape, NPY_FLOAT32)) ? 0 : -1;
}

/* Whether at most a third of the floats of a large gradient are not zero, as far as some of them, anywhere, tell: fewer
 * are faster listed than summed. */
static int mostly_zero(const PyArrayObject *floats) {
  enum { SAMPLES = 512, LARGE = 1 << 14 };
  int64_t size = PyArray_SIZE((PyArrayObject *)floats), others = 0;
  if (size < LARGE) return 0;
  const float *x = PyArray_DATA((PyArrayObject *)floats);
  for (uint64_t i = 0; i < SAMPLES; i++) others += x[i * UINT64_C(0x9e3779b97f4a7c15) % (uint64_t)size] != 0;
  return 3 * others <= SAMPLES;
}

static PyObject *signed_right(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "right", "geometry", "pad", "transposed", "out", "gradient", NULL};
  PyObject *x, *right, *geometry, *pad, *transposed, *out = Py_None;
  int gradient = 0;
  if (!PARSE("OOOOO|Op:signed_right", &x, &right, &geometry, &pad, &transposed, &out, &gradient)) return NULL;
  call c;
  if (call_begin(&c, "signed_right", self, geometry, pad, PyObject_IsTrue(transposed), 0) < 0 || call_left(&c, x) < 0 ||
      call_prepared(&c, right) < 0 || (out != Py_None && call_out(&c, out) < 0))
    return call_end(&c, 0);
  c.few = gradient && mostly_zero(c.left);
  return call_forward(&c, &c.kernels->signed_right, NPY_FLOAT32);
}

/* Convolution of bits or floats with floats. */
static PyObject *times_floats(const char *function, PyObject *self, PyObject *args, PyObject *keywords, int packed) {
  static char *names[] = {"x", "w", "geometry", "pad", "transposed", NULL};
  PyObject *x, *w, *geometry, *pad, *transposed = Py_False;
  const char *format = packed ? "OOOO|O:signed_left" : "OOOO|O:direct";
  if (!PARSE(format, &x, &w, &geometry, &pad, &transposed)) return NULL;
  call c;
  if (call_begin(&c, function, self, geometry, pad, PyObject_IsTrue(transposed), packed) < 0 || call_left(&c, x) < 0 ||
      !(c.right = check_array(function, "w", w, NPY_FLOAT32)))
    return call_end(&c, 0);
  check_shape_of shape = {.middle = c.taps, .sizes = 2, .size = {c.channels / c.geometry.groups, c.filters}};
  if (check_shape(function, "w", c.right, &shape) < 0) return call_end(&c, 0);
  return call_forward(&c, packed ? &c.kernels->signed_left : &c.kernels->direct, NPY_FLOAT32);
}

static PyObject *signed_left(PyObject *self, PyObject *args, PyObject *keywords) {
  return times_floats("signed_left", self, args, keywords, 1);
}

static PyObject *direct(PyObject *self, PyObject *args, PyObject *keywords) {
  return times_floats("direct", self, args, keywords, 0);
}

/* The gradient dy of a product's result, of which kernel gradients are made. */
static int call_gradient(call *c, PyObject *dy) {
  c->right = check_array(c->function, "dy", dy, NPY_FLOAT32);
  if (!c->right) return -1;
  check_shape_of shape = {.middle = c->geometry.batch * c->pixels, .sizes = 1, .size = {c->filters}};
  return check_shape(c->function, "dy", c->right, &shape);
}

static PyObject *signed_reduce(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "dy", "geometry", "pad", "transposed", "by_group", NULL};
  PyObject *x, *dy, *geometry, *pad, *transposed = Py_False;
  int by_group = 0;
  if (!PARSE("OOOO|Op:signed_reduce", &x, &dy, &geometry, &pad, &transposed, &by_group)) return NULL;
  call c;
  if (call_begin(&c, "signed_reduce", self, geometry, pad, PyObject_IsTrue(transposed), 1) < 0 ||
      call_left(&c, x) < 0 || call_gradient(&c, dy) < 0)
    return call_end(&c, 0);
  int64_t depth = c.channels / c.geometry.groups;
  int64_t lengths[] = {c.taps, depth, c.filters};
  if (by_group) { /* no overflow: there are as many elements */
    lengths[0] = c.geometry.groups;
    lengths[1] = c.taps * depth;
    lengths[2] = c.filters / c.geometry.groups;
  }
  c.by_group = by_group;
  c.few = mostly_zero(c.right);
  return call_finish(&c, &c.kernels->signed_reduce, lengths, NPY_FLOAT32);
}

static PyObject *direct_reduce(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "dy", "geometry", "pad", NULL};
  PyObject *x, *dy, *geometry, *pad;
  if (!PARSE("OOOO:direct_reduce", &x, &dy, &geometry, &pad)) return NULL;
  call c;
  if (call_begin(&c, "direct_reduce", self, geometry, pad, 0, 0) < 0 || call_left(&c, x) < 0 ||
      call_gradient(&c, dy) < 0)
    return call_end(&c, 0);
  int64_t lengths[] = {c.taps, c.channels / c.geometry.groups, c.filters};
  return call_finish(&c, &c.kernels->direct_reduce, lengths, NPY_FLOAT32);
}

/* ---- depthwise ------------------------------------------------------------------------------------------------- */

static int is_words(PyObject *x) { return PyArray_Check(x) && PyArray_TYPE((PyArrayObject *)x) == NPY_UINT32; }

/* A product with as many groups as channels. `kind` is that of x, if x is words. */
static int depthwise_begin(call *c, const char *function, PyObject *self, PyObject *geometry, PyObject *pad,
                           int transposed, int packed, PyObject *x, PyObject *kind) {
  if (call_begin(c, function, self, geometry, pad, transposed, packed) < 0) return -1;
  if (c->geometry.groups != c->geometry.channels) {
    check_raise(PyExc_ValueError, function, "geometry", geometry, "of as many groups as channels");
    return -1;
  }
  if (read_kind(function, "x_kind", kind, &c->left_kind) < 0) return -1;
  if (packed) c->left_planes = c->left_kind == BNN_TERNARY ? 2 : ANY_PLANES;
  return call_left(c, x);
}

/* The kernel (taps..., C, M): floats, or words of `planes` planes of bits packed along C, which moves last. */
static int depthwise_kernel(call *c, PyObject *w, int words, int planes) {
  int64_t channels = c->geometry.channels, multiplier = c->geometry.filters / channels;
  c->right = check_array(c->function, "w", w, words ? NPY_UINT32 : NPY_FLOAT32);
  if (!c->right) return -1;
  if (planes == ANY_PLANES) planes = planes_of(c->right);
  c->right_planes = planes;
  check_shape_of floats = {.middle = c->taps, .sizes = 2, .size = {channels, multiplier}};
  check_shape_of bits = {
      .has_first = 1, .first = planes, .middle = c->taps, .sizes = 2, .size = {multiplier, bnn_words(channels)}};
  return check_shape(c->function, "w", c->right, words ? &bits : &floats);
}

/* Without the GIL. -1 when memory is short. */
static int depthwise_run(const call *c, const bnn_kernel *kernel, double divisor) {
  const bnn_geometry *g = &c->geometry;
  int64_t multiplier = g->filters / g->channels, words = bnn_words(c->channels) * multiplier;
  void *constant = NULL;
  int status = -1;
  bnn_schedule *schedule = bnn_schedule_make(g, c->transposed, c->pad != 0);
  if (!schedule) return -1;
  if (c->pad != 0 && !c->packed && !(constant = constant_row(c, c->channels))) goto done;
  bnn_product product = {.schedule = schedule,
                         .images = g->batch,
                         .groups = g->channels,
                         .depth = c->transposed ? multiplier : 1,
                         .columns = c->transposed ? 1 : multiplier,
                         .left = PyArray_DATA(c->left),
                         .right = PyArray_DATA(c->right),
                         .constant = constant,
                         .out = PyArray_DATA(c->out),
                         .out_type = PyArray_TYPE(c->out) == NPY_FLOAT32 ? BNN_FLOAT32 : BNN_INT32,
                         .left_kind = c->left_kind,
                         .right_kind = c->right_kind,
                         .left_planes = c->left_planes,
                         .right_planes = c->right_planes,
                         .pad = c->packed ? (int)c->pad : 0,
                         .divisor = (float)divisor};
  int bits = kernel == &c->kernels->depthwise_xnor;
  double work = (double)g->batch * (double)c->pixels * (double)c->taps *
                (double)(bits ? words * c->left_planes * c->right_planes : g->filters);
  status = call_product(c, kernel, &product, c->taps * g->filters, work);

done:
  free(schedule);
  free(constant);
  return status;
}

static PyObject *depthwise_finish(call *c, const bnn_kernel *kernel, const int64_t *lengths, int type, double divisor) {
  int status = 0, empty = call_empty(c);
  c->out = new_array(c->function, 3, lengths, type, empty);
  if (c->out && !empty) {
    Py_BEGIN_ALLOW_THREADS;
    status = depthwise_run(c, kernel, divisor);
    Py_END_ALLOW_THREADS;
  }
  return call_end(c, status);
}

static PyObject *depthwise_xnor(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "w", "geometry", "pad", "dtype", "x_kind", "w_kind", "divisor", NULL};
  PyObject *x, *w, *geometry, *pad, *dtype, *x_kind = NULL, *w_kind = NULL, *divisor_arg = NULL;
  if (!PARSE("OOOOO|OOO:depthwise_xnor", &x, &w, &geometry, &pad, &dtype, &x_kind, &w_kind, &divisor_arg)) return NULL;
  call c;
  int type;
  double divisor = 1;
  if (depthwise_begin(&c, "depthwise_xnor", self, geometry, pad, 0, 1, x, x_kind) < 0 ||
      check_dtype("depthwise_xnor", dtype, (int[]){NPY_INT32, NPY_FLOAT32, NPY_NOTYPE}, &type) < 0 ||
      read_kind("depthwise_xnor", "w_kind", w_kind, &c.right_kind) < 0 ||
      (divisor_arg && check_float("depthwise_xnor", "divisor", divisor_arg, &divisor) < 0) ||
      depthwise_kernel(&c, w, 1, c.right_kind == BNN_TERNARY ? 2 : ANY_PLANES) < 0 || check_sums(&c, type) < 0)
    return call_end(&c, 0);
  int64_t lengths[] = {c.geometry.batch, c.pixels, c.filters};
  return depthwise_finish(&c, &c.kernels->depthwise_xnor, lengths, type, divisor);
}

static PyObject *depthwise_float(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "w", "geometry", "pad", "transposed", "x_kind", NULL};
  PyObject *x, *w, *geometry, *pad, *transposed, *x_kind = NULL;
  if (!PARSE("OOOOO|O:depthwise_float", &x, &w, &geometry, &pad, &transposed, &x_kind)) return NULL;
  call c;
  int back = PyObject_IsTrue(transposed);
  if (depthwise_begin(&c, "depthwise_float", self, geometry, pad, back, !back && is_words(x), x, x_kind) < 0 ||
      depthwise_kernel(&c, w, !c.packed && is_words(w), 1) < 0)
    return call_end(&c, 0);
  const bnn_kernels *k = c.kernels;
  const bnn_kernel *kernel = c.packed ? &k->depthwise_left : is_words(w) ? &k->depthwise_right : &k->depthwise_float;
  int64_t lengths[] = {c.geometry.batch, c.pixels, c.filters};
  return depthwise_finish(&c, kernel, lengths, NPY_FLOAT32, 1);
}

static PyObject *depthwise_reduce(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "dy", "geometry", "pad", "x_kind", NULL};
  PyObject *x, *dy, *geometry, *pad, *x_kind = NULL;
  if (!PARSE("OOOO|O:depthwise_reduce", &x, &dy, &geometry, &pad, &x_kind)) return NULL;
  call c;
  if (depthwise_begin(&c, "depthwise_reduce", self, geometry, pad, 0, is_words(x), x, x_kind) < 0 ||
      call_gradient(&c, dy) < 0)
    return call_end(&c, 0);
  const bnn_kernel *kernel = c.packed ? &c.kernels->depthwise_reduce : &c.kernels->depthwise_float_reduce;
  int64_t lengths[] = {c.taps, c.channels, c.filters / c.channels};
  return depthwise_finish(&c, kernel, lengths, NPY_FLOAT32, 1);
}

/* ---- im2col ---------------------------------------------------------------------------------------------------- */

typedef struct {
  const bnn_columns *columns;
  void (*run)(const bnn_columns *columns, int64_t begin, int64_t end);
} columns_range;

static void columns_run(void *context, int thread, int64_t begin, int64_t end) {
  (void)thread;
  const columns_range *range = context;
  range->run(range->columns, begin, end);
}

/* Without the GIL. -1 when memory is short. */
static int run_columns(const bnn_geometry *g, int back, bnn_columns *columns, int wide) {
  bnn_schedule *schedule = bnn_schedule_make(g, back, !back);
  if (!schedule) return -1;
  columns->schedule = schedule;
  columns_range range = {columns,
                         back ? (wide ? bnn_col2im_f64 : bnn_col2im_f32) : (wide ? bnn_im2col_f64 : bnn_im2col_f32)};
  int64_t items = columns->images * schedule->pixels;
  double work = (double)items * (double)(columns->groups * columns->depth) * (double)schedule->taps;
  if (work > 0) bnn_parallel(run_threads(items, work), items, run_grain(items, work), columns_run, &range);
  free(schedule);
  return 0;
}

static PyObject *columns_call(const char *function, PyObject *value, PyObject *geometry, PyObject *pad) {
  int back = !pad; /* col2im has no pad value */
  bnn_geometry g;
  bnn_columns columns = {0};
  if (check_geometry(function, geometry, &g) < 0) return NULL;
  if (pad && check_float(function, "pad", pad, &columns.pad) < 0) return NULL;
  columns.images = g.batch;
  columns.groups = g.groups;
  columns.depth = g.channels / g.groups;
  int64_t sources = volume(g.in), pixels = volume(g.out), taps = volume(g.kernel);
  int64_t dense[] = {g.batch, sources, g.channels}, spread[] = {g.groups, g.batch * pixels, taps * columns.depth};
  int64_t *lengths = back ? dense : spread, count;
  if (check_count(function, 3, spread, &count) < 0) return NULL;

  PyArrayObject *in = check_real(function, back ? "columns" : "x", value), *out = NULL;
  if (!in) return NULL;
  npy_intp exact[] = {(npy_intp)spread[0], (npy_intp)spread[1], (npy_intp)spread[2]};
  check_shape_of shape = {.middle = g.batch * sources, .sizes = 1, .size = {g.channels}};
  if (back ? check_exact_shape(function, "columns", in, 3, exact) < 0 : check_shape(function, "x", in, &shape) < 0)
    goto done;
  int type = PyArray_TYPE(in), status;
  out = new_array(function, 3, lengths, type, 0);
  if (!out) goto done;
  columns.x = PyArray_DATA(back ? out : in);
  columns.columns = PyArray_DATA(back ? in : out);
  Py_BEGIN_ALLOW_THREADS;
  status = run_columns(&g, back, &columns, type == NPY_FLOAT64);
  Py_END_ALLOW_THREADS;
  if (status < 0) {
    PyErr_NoMemory();
    Py_CLEAR(out);
  }

done:
  Py_DECREF(in);
  return (PyObject *)out;
}

static PyObject *im2col(PyObject *self, PyObject *args, PyObject *keywords) {
  (void)self;
  static char *names[] = {"x", "geometry", "pad", NULL};
  PyObject *x, *geometry, *pad;
  if (!PARSE("OOO:im2col", &x, &geometry, &pad)) return NULL;
  return columns_call("im2col", x, geometry, pad);
}

static PyObject *col2im(PyObject *self, PyObject *args, PyObject *keywords) {
  (void)self;
  static char *names[] = {"columns", "geometry", NULL};
  PyObject *columns, *geometry;
  if (!PARSE("OO:col2im", &columns, &geometry)) return NULL;
  return columns_call("col2im", columns, geometry, NULL);
}

/* ---- method table ---------------------------------------------------------------------------------------------- */

#define METHOD(name, function, signature, doc)                                 \
  {                                                                            \
    name, (PyCFunction)(void (*)(void))function, METH_VARARGS | METH_KEYWORDS, \
        name "($self, " signature ")\n--\n\n" doc                              \
  }

PyMethodDef conv_methods[] = {
    METHOD("pack", pack, "x, axis, clip, kind='sign', parameter=0.0",
           "Bits of x along an axis, which moves last: (words, words of |x| <= clip or None, whether x holds a NaN)."),
    METHOD("unpack", unpack, "words, count, axis, dtype='float32'",
           "+1 and -1 from sign words, the packed axis moved back to its place."),
    METHOD("select", select_, "dy, mask, axis, out=None, add=False",
           "dy where the mask bit is 1, else 0; out may be dy, or what that is added to."),
    {"all_set", all_set, METH_VARARGS,
     "all_set($self, words, count, /)\n--\n\nWhether words that hold `count` bits along their last axis are all ones."},
    METHOD("prepare", prepare, "words, groups, channels, transposed",
           "The right operand of a product in the layout of this level."),
    METHOD("xnor", xnor, "x, right, geometry, pad, transposed, dtype, left='sign', right_kind='sign', right_planes=1",
           "Convolution of a packed operand with a packed operand."),
    METHOD("signed_right", signed_right, "x, right, geometry, pad, transposed, out=None, gradient=False",
           "Convolution of floats with packed signs; if they are a gradient, the order of sums may depend on them."),
    METHOD("signed_left", signed_left, "x, w, geometry, pad, transposed=False",
           "Convolution of packed signs with floats."),
    METHOD("signed_reduce", signed_reduce, "x, dy, geometry, pad, transposed=False, by_group=False",
           "Kernel gradient of a convolution whose input is packed signs."),
    METHOD("direct", direct, "x, w, geometry, pad, transposed=False",
           "Convolution of floats with floats, without im2col."),
    METHOD("direct_reduce", direct_reduce, "x, dy, geometry, pad",
           "Kernel gradient of a convolution whose input is floats, without im2col."),
    METHOD("depthwise_xnor", depthwise_xnor, "x, w, geometry, pad, dtype, x_kind='sign', w_kind='sign', divisor=1.0",
           "Depthwise convolution of a packed operand with a packed operand."),
    METHOD("depthwise_float", depthwise_float, "x, w, geometry, pad, transposed, x_kind='sign'",
           "Depthwise convolution where at least one of the operands is floats."),
    METHOD("depthwise_reduce", depthwise_reduce, "x, dy, geometry, pad, x_kind='sign'",
           "Kernel gradient of a depthwise convolution whose input is packed or floats."),
    METHOD("im2col", im2col, "x, geometry, pad", "The inputs that each output pixel reads, one row per pixel."),
    METHOD("col2im", col2im, "columns, geometry", "Transpose of im2col: the sum of the entries that read each input."),
    {NULL, NULL, 0, NULL},
};
