/* What surrounds a product: batch norm, pooling, the rectifier, and updates of weights. Nothing here computes. */
#include "module.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "run.h"

#define PARSE(format, ...) PyArg_ParseTupleAndKeywords(args, keywords, format, names, __VA_ARGS__)

static float *data_of(PyArrayObject *array) { return PyArray_DATA(array); }

static PyArrayObject *empty_like(PyArrayObject *x) {
  return memory_array(PyArray_NDIM(x), PyArray_DIMS(x), NPY_FLOAT32, 0);
}

/* ---- batch norm ------------------------------------------------------------------------------------------------ */

enum { X, DY, ADDEND, MASK, MEAN, INVERSE, SCALE, SHIFT, SLOPE, OPERANDS };

typedef struct {
  PyArrayObject *array[OPERANDS]; /* but x */
  PyObject *x;                    /* a tuple of its pieces */
  bnn_norm_piece *piece;
  int axes;
  npy_intp shape[NPY_MAXDIMS]; /* of all pieces together */
  bnn_norm norm;
} norm_call;

static void norm_end(norm_call *c) {
  for (int i = 0; i < OPERANDS; i++) Py_XDECREF(c->array[i]);
  Py_XDECREF(c->x);
  free(c->piece);
}

/* An operand that may be None. */
static PyObject *given(PyObject *value) { return value == Py_None ? NULL : value; }

/* Whether a row is whole words of channels, for signs or a mask. */
static int norm_whole_words(const char *function, norm_call *c) {
  if (c->norm.pieces > 1) return 0;
  check_shape_of shape = {
      .middle = CHECK_ANY, .sizes = 1, .size = {c->norm.channels + 31 - (c->norm.channels + 31) % 32}};
  return check_shape(function, "x", (PyArrayObject *)PyTuple_GET_ITEM(c->x, 0), &shape);
}

/* Whether x is what a product of bits comes to, as int16. */
static int norm_integers(PyObject *x) { return PyArray_Check(x) && PyArray_TYPE((PyArrayObject *)x) == NPY_INT16; }

/* Values from a row of x to the next, if it is of so many channels that they may lie apart; else 0. */
static npy_intp norm_stride(PyObject *value) {
  PyArrayObject *x = (PyArrayObject *)value;
  int integers = norm_integers(value);
  npy_intp size = integers ? sizeof(int16_t) : sizeof(float);
  if (!PyArray_Check(value) || !(integers || PyArray_TYPE(x) == NPY_FLOAT32) || !PyArray_ISBEHAVED_RO(x)) return 0;
  int last = PyArray_NDIM(x) - 1;
  if (last < 1 || PyArray_DIM(x, last) < BNN_NORM_APART || PyArray_STRIDE(x, last) != size) return 0;
  npy_intp stride = PyArray_STRIDE(x, last - 1);
  for (int i = last - 1; i > 0; i--)
    if (PyArray_STRIDE(x, i - 1) != PyArray_STRIDE(x, i) * PyArray_DIM(x, i)) return 0;
  return stride > 0 && stride % size == 0 ? stride / size : 0;
}

/* One of `count` pieces, which lie side by side along the last axis. */
static int norm_piece(norm_call *c, const char *function, PyObject *value, Py_ssize_t i, Py_ssize_t count) {
  npy_intp stride = norm_stride(value);
  int integers = norm_integers(value), type = integers ? NPY_INT16 : NPY_FLOAT32;
  PyArrayObject *x = stride ? (PyArrayObject *)Py_NewRef(value) : check_array(function, "x", value, type);
  if (!x) return -1;
  PyTuple_SET_ITEM(c->x, i, (PyObject *)x);
  check_shape_of any = {.middle = CHECK_ANY, .sizes = 1, .size = {CHECK_ANY}};
  if (check_shape(function, "x", x, &any) < 0) return -1;
  int last = PyArray_NDIM(x) - 1;
  npy_intp channels = PyArray_DIM(x, last);
  if (i == 0) {
    c->axes = last + 1;
    memcpy(c->shape, PyArray_DIMS(x), (size_t)c->axes * sizeof *c->shape);
    c->norm.rows = channels ? PyArray_SIZE(x) / channels : 0;
  } else {
    npy_intp before = c->shape[last];
    c->shape[last] = channels;
    if (check_exact_shape(function, "x", x, c->axes, c->shape) < 0) return -1;
    c->shape[last] += before;
  }
  if (count > 1 && (channels == 0 || channels % BNN_WORD)) {
    check_raise(PyExc_ValueError, function, "x", value, "in pieces of whole words of channels");
    return -1;
  }
  c->piece[i] = (bnn_norm_piece){channels, stride ? stride : channels, PyArray_DATA(x), NULL, integers};
  return 0;
}

/* x is one array, or a tuple of its pieces where what is computed has a number per channel. */
static int norm_read_x(norm_call *c, const char *function, PyObject *value, int in_pieces) {
  in_pieces = in_pieces && PyTuple_Check(value) && PyTuple_GET_SIZE(value) > 0;
  Py_ssize_t count = in_pieces ? PyTuple_GET_SIZE(value) : 1;
  c->x = PyTuple_New(count);
  c->piece = calloc((size_t)count, sizeof *c->piece);
  if (!c->x || !c->piece) {
    if (c->x) PyErr_NoMemory();
    return -1;
  }
  for (Py_ssize_t i = 0; i < count; i++)
    if (norm_piece(c, function, in_pieces ? PyTuple_GET_ITEM(value, i) : value, i, count) < 0) return -1;
  c->norm.channels = c->shape[c->axes - 1];
  c->norm.pieces = count;
  c->norm.piece = c->piece;
  return 0;
}

/* Reads the operands that are given; the others are NULL. x has a row per item of all axes but the last, dy and what is
 * added are like it, the mask has its words, and the rest has a number per channel. */
static int norm_begin(norm_call *c, const char *function, PyObject *const *operand, int rectified) {
  static const char *const names[] = {"x", "dy", "addend", "mask", "mean", "inverse", "scale", "shift", "slope"};
  memset(c, 0, sizeof *c);
  bnn_norm *n = &c->norm;
  n->rectified = rectified;
  if (norm_read_x(c, function, operand[X], operand[MEAN] != NULL) < 0) return -1;
  for (int i = X + 1; i < OPERANDS; i++) {
    if (!operand[i]) continue;
    c->array[i] = check_array(function, names[i], operand[i], i == MASK ? NPY_UINT32 : NPY_FLOAT32);
    if (!c->array[i]) return -1;
    check_shape_of row = {.middle = 1, .sizes = 1, .size = {n->channels}};
    check_shape_of words = {.middle = n->rows, .sizes = 1, .size = {bnn_words(n->channels)}};
    int like_x = i == DY || i == ADDEND;
    int wrong = like_x      ? check_exact_shape(function, names[i], c->array[i], c->axes, c->shape)
                : i == MASK ? check_shape(function, names[i], c->array[i], &words) || norm_whole_words(function, c)
                            : check_shape(function, names[i], c->array[i], &row);
    if (wrong) return -1;
  }
  const float **at[] = {NULL, &n->dy, &n->addend, NULL, &n->mean, &n->inverse, &n->scale, &n->shift, &n->slope};
  for (int i = X + 1; i < OPERANDS; i++)
    if (i != MASK) *at[i] = c->array[i] ? data_of(c->array[i]) : NULL;
  if (c->array[MASK]) n->mask = PyArray_DATA(c->array[MASK]);
  return 0;
}

/* Some numbers per channel; the sums of no rows are zero. */
static PyObject *norm_reduce(PyObject *self, norm_call *c, bnn_pass pass, bnn_pass total, npy_intp numbers) {
  bnn_norm *n = &c->norm;
  npy_intp shape[] = {numbers, (npy_intp)n->channels};
  PyArrayObject *out = memory_array(2, shape, NPY_FLOAT32, 0);
  if (out && n->channels > 0) {
    int64_t blocks = kernels_of(self)->norm_blocks(n->rows, n->channels);
    Py_BEGIN_ALLOW_THREADS;
    n->out = data_of(out);
    n->parts = run_alloc(blocks * 2 * n->channels * (int64_t)sizeof(float));
    if (n->parts) {
      if (n->rows > 0) run_pass(pass, n, blocks, (double)n->rows * (double)n->channels);
      run_pass(total, n, n->channels, 2 * (double)blocks * (double)n->channels);
      free(n->parts);
    }
    Py_END_ALLOW_THREADS;
    if (!n->parts) {
      PyErr_NoMemory();
      Py_CLEAR(out);
    }
  }
  norm_end(c);
  return (PyObject *)out;
}

/* Writes where the caller has said. */
static void norm_map(PyObject *self, const bnn_norm *n, bnn_pass pass) {
  if (n->rows == 0) return;
  int64_t blocks = kernels_of(self)->norm_blocks(n->rows, n->channels);
  Py_BEGIN_ALLOW_THREADS;
  run_pass(pass, n, blocks, (double)n->rows * (double)n->channels);
  Py_END_ALLOW_THREADS;
}

static PyObject *norm_fail(norm_call *c) {
  norm_end(c);
  return NULL;
}

/* A moving average, to be written. */
static int norm_average(norm_call *c, const char *name, PyObject *value, float **average) {
  if (value == Py_None) return 0;
  npy_intp shape = (npy_intp)c->norm.channels;
  PyArrayObject *array = check_out("moments", name, value, 1, &shape, NPY_FLOAT32);
  if (!array) return -1;
  *average = data_of(array);
  Py_DECREF(array); /* the caller has it */
  return 0;
}

static PyObject *moments(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "epsilon", "mean", "variance", "rate", "unbiased", "rectified", NULL};
  const bnn_kernels *kernels = kernels_of(self);
  PyObject *operand[OPERANDS] = {NULL}, *mean = Py_None, *variance = Py_None;
  float epsilon, rate = 0, unbiased = 1;
  int rectified = 0;
  norm_call c;
  if (!PARSE("Of|OOffp:moments", &operand[X], &epsilon, &mean, &variance, &rate, &unbiased, &rectified)) return NULL;
  if (norm_begin(&c, "moments", operand, rectified) < 0) return norm_fail(&c);
  if (norm_average(&c, "mean", mean, &c.norm.average[0]) < 0 ||
      norm_average(&c, "variance", variance, &c.norm.average[1]) < 0)
    return norm_fail(&c);
  c.norm.epsilon = epsilon, c.norm.rate = rate, c.norm.unbiased = unbiased;
  return norm_reduce(self, &c, kernels->norm_moments, kernels->norm_moments_total, 3);
}

/* What was summed before, to be written. */
static int norm_before(norm_call *c, PyObject *sums, PyObject *rows) {
  npy_intp shape[] = {2, (npy_intp)c->norm.channels};
  if (rows && check_int("norm_sums", "rows_before", rows, 0, PTRDIFF_MAX / 64, &c->norm.rows_before) < 0) return -1;
  if (sums == Py_None) return 0;
  PyArrayObject *array = check_out("norm_sums", "before", sums, 2, shape, NPY_FLOAT64);
  if (!array) return -1;
  c->norm.before = PyArray_DATA(array);
  Py_DECREF(array); /* the caller has it */
  return 0;
}

static PyObject *norm_rows(PyObject *self, PyObject *args) {
  PyObject *value;
  int64_t channels;
  if (!PyArg_ParseTuple(args, "O:norm_rows", &value) ||
      check_int("norm_rows", "channels", value, 1, INT32_MAX, &channels) < 0)
    return NULL;
  return PyLong_FromLongLong(kernels_of(self)->norm_rows(channels));
}

static PyObject *norm_sums(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "dy", "mean", "inverse", "mask", "rectified", "before", "rows_before", NULL};
  const bnn_kernels *kernels = kernels_of(self);
  PyObject *operand[OPERANDS] = {NULL}, *before = Py_None, *rows = NULL;
  int rectified = 0;
  norm_call c;
  if (!PARSE("OOOO|OpOO:norm_sums", &operand[X], &operand[DY], &operand[MEAN], &operand[INVERSE], &operand[MASK],
             &rectified, &before, &rows))
    return NULL;
  operand[MASK] = given(operand[MASK]);
  if (norm_begin(&c, "norm_sums", operand, rectified) < 0 || norm_before(&c, before, rows) < 0) return norm_fail(&c);
  return norm_reduce(self, &c, kernels->norm_sums, kernels->norm_sums_total, 4);
}

static PyObject *normalize(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "mean", "scale", "shift", "addend", "rectified", NULL};
  PyObject *operand[OPERANDS] = {NULL};
  int rectified = 0;
  norm_call c;
  if (!PARSE("OOOO|Op:normalize", &operand[X], &operand[MEAN], &operand[SCALE], &operand[SHIFT], &operand[ADDEND],
             &rectified))
    return NULL;
  operand[SHIFT] = given(operand[SHIFT]), operand[ADDEND] = given(operand[ADDEND]);
  if (norm_begin(&c, "normalize", operand, rectified) < 0) return norm_fail(&c);
  PyArrayObject *out = memory_array(c.axes, c.shape, NPY_FLOAT32, 0);
  if (!out) return norm_fail(&c);
  c.norm.out = data_of(out);
  norm_map(self, &c.norm, kernels_of(self)->normalize);
  norm_end(&c);
  return (PyObject *)out;
}

static PyObject *normalize_sign(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "mean", "scale", "shift", "clip", "addend", "rectified", "floats", NULL};
  PyObject *operand[OPERANDS] = {NULL}, *clip, *signs = NULL, *within = NULL, *out = NULL;
  npy_intp shape[NPY_MAXDIMS + 1] = {1};
  uint8_t *nan = NULL;
  double limit = 0;
  int rectified = 0, floats = 0, found = 0;
  norm_call c;
  if (!PARSE("OOOOO|Opp:normalize_sign", &operand[X], &operand[MEAN], &operand[SCALE], &operand[SHIFT], &clip,
             &operand[ADDEND], &rectified, &floats))
    return NULL;
  operand[SHIFT] = given(operand[SHIFT]), operand[ADDEND] = given(operand[ADDEND]);
  if (norm_begin(&c, "normalize_sign", operand, rectified) < 0 || norm_whole_words("normalize_sign", &c) < 0)
    return norm_fail(&c);
  if (clip != Py_None && check_float("normalize_sign", "clip", clip, &limit) < 0) return norm_fail(&c);
  int axes = c.axes;
  memcpy(shape + 1, c.shape, (size_t)axes * sizeof *shape);
  shape[axes] = (npy_intp)bnn_words(c.norm.channels);
  bnn_norm *n = &c.norm;
  int64_t blocks = n->channels > 0 ? kernels_of(self)->norm_blocks(n->rows, n->channels) : 0;
  signs = PyArray_EMPTY(axes + 1, shape, NPY_UINT32, 0);
  within = clip == Py_None ? Py_NewRef(Py_None) : PyArray_EMPTY(axes, shape + 1, NPY_UINT32, 0);
  out = floats ? (PyObject *)memory_array(axes, c.shape, NPY_FLOAT32, 0) : Py_NewRef(Py_None);
  if (!signs || !within || !out || !(nan = run_alloc(blocks))) {
    if (signs && within && out) PyErr_NoMemory();
    Py_XDECREF(signs);
    Py_XDECREF(within);
    Py_XDECREF(out);
    return norm_fail(&c);
  }
  n->clip = (float)limit;
  n->words = PyArray_DATA((PyArrayObject *)signs);
  n->within = clip == Py_None ? NULL : PyArray_DATA((PyArrayObject *)within);
  n->out = floats ? data_of((PyArrayObject *)out) : NULL;
  n->nan = nan;
  Py_BEGIN_ALLOW_THREADS;
  if (blocks > 0) run_pass(kernels_of(self)->normalize_sign, n, blocks, (double)n->rows * (double)n->channels);
  for (int64_t i = 0; i < blocks; i++) found |= nan[i];
  free(nan);
  Py_END_ALLOW_THREADS;
  norm_end(&c);
  return Py_BuildValue("NNNN", signs, within, PyBool_FromLong(found), out);
}

/* Where the gradient of each piece goes, as a tuple: new arrays if `value` is NULL or None. */
static PyObject *norm_outs(norm_call *c, const char *function, PyObject *value, int add) {
  Py_ssize_t count = PyTuple_GET_SIZE(c->x);
  int several = value && value != Py_None && (count > 1 || PyTuple_Check(value));
  if (several && (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != count)) {
    check_raise(PyExc_ValueError, function, "out", value, "a tuple like x");
    return NULL;
  }
  PyObject *outs = PyTuple_New(count);
  for (Py_ssize_t i = 0; outs && i < count; i++) {
    PyArrayObject *x = (PyArrayObject *)PyTuple_GET_ITEM(c->x, i);
    PyObject *out = several ? PyTuple_GET_ITEM(value, i) : value;
    PyArrayObject *to = NULL;
    if (add && (!out || out == Py_None))
      check_raise(PyExc_ValueError, function, "out", Py_None, "an array, since it is added to");
    else
      to = check_out(function, "out", out, c->axes, PyArray_DIMS(x), NPY_FLOAT32);
    if (to) {
      PyTuple_SET_ITEM(outs, i, (PyObject *)to);
      c->piece[i].dx = data_of(to);
    } else {
      Py_CLEAR(outs);
    }
  }
  return outs;
}

static PyObject *normalize_grad(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "dy", "mean", "scale", "shift", "slope", "mask", "out", "add", "rectified", NULL};
  PyObject *operand[OPERANDS] = {NULL}, *out = NULL, *outs;
  norm_call c;
  int add = 0, rectified = 0;
  if (!PARSE("OOOOOO|OOpp:normalize_grad", &operand[X], &operand[DY], &operand[MEAN], &operand[SCALE], &operand[SHIFT],
             &operand[SLOPE], &operand[MASK], &out, &add, &rectified))
    return NULL;
  operand[MASK] = given(operand[MASK]);
  if (norm_begin(&c, "normalize_grad", operand, rectified) < 0 || !(outs = norm_outs(&c, "normalize_grad", out, add)))
    return norm_fail(&c);
  c.norm.add = add;
  norm_map(self, &c.norm, kernels_of(self)->normalize_grad);
  norm_end(&c);
  if (PyTuple_Check(operand[X])) return outs;
  out = Py_NewRef(PyTuple_GET_ITEM(outs, 0));
  Py_DECREF(outs);
  return out;
}

/* ---- pooling --------------------------------------------------------------------------------------------------- */

/* Whether every window reaches a pixel of the input, and at most the last one's end lies beyond it. */
static int check_windows(const char *function, PyObject *value, const bnn_geometry *g) {
  for (int axis = 0; axis < 3; axis++) {
    int64_t last = (g->out[axis] - 1) * g->stride[axis] - g->pad[axis];
    if (g->dilation[axis] != 1 || (g->out[axis] > 0 && (g->pad[axis] >= g->kernel[axis] || last >= g->in[axis]))) {
      check_raise(PyExc_ValueError, function, "geometry", value, "of windows that all reach the input, undilated");
      return -1;
    }
  }
  if (g->filters == g->channels) return 0;
  check_raise(PyExc_ValueError, function, "geometry", value, "of as many filters as channels");
  return -1;
}

static int64_t volume(const int64_t size[3]) { return size[0] * size[1] * size[2]; }

/* One plane of bits for each binary digit of a tap. */
static int planes_for(int64_t taps) {
  int planes = 0;
  while ((int64_t)1 << planes < taps) planes++;
  return planes;
}

/* x of the geometry's inputs to its outputs, or backwards. With `winner`, who won is read; with `traced`, told.
 * `result` is where to write, or NULL. */
static PyObject *pool_call(PyObject *self, const char *function, PyObject *value, PyObject *geometry, int back,
                           bnn_pass pass, PyObject *winner, int traced, PyObject *result) {
  bnn_geometry g;
  if (check_geometry(function, geometry, &g) < 0 || check_windows(function, geometry, &g) < 0) return NULL;
  (void)self;
  const int64_t *from = back ? g.out : g.in, *to = back ? g.in : g.out;
  int64_t length[] = {planes_for(volume(g.kernel)), g.batch, volume(g.out), bnn_words(g.channels)}, count;
  npy_intp words[] = {(npy_intp)length[0], (npy_intp)length[1], (npy_intp)length[2], (npy_intp)length[3]};
  npy_intp shape[] = {(npy_intp)g.batch, (npy_intp)to[0], (npy_intp)to[1], (npy_intp)to[2], (npy_intp)g.channels};
  check_shape_of expected = {.middle = g.batch * volume(from), .sizes = 1, .size = {g.channels}};
  if (check_count(function, 4, length, &count) < 0) return NULL;

  PyArrayObject *out = NULL, *who = NULL, *in = check_array(function, back ? "dy" : "x", value, NPY_FLOAT32);
  if (!in || check_shape(function, back ? "dy" : "x", in, &expected) < 0) goto fail;
  if (winner) who = check_array(function, "winner", winner, NPY_UINT32);
  if (winner && (!who || check_exact_shape(function, "winner", who, 4, words) < 0)) goto fail;
  if (traced && !(who = (PyArrayObject *)PyArray_EMPTY(4, words, NPY_UINT32, 0))) goto fail;
  if (!(out = check_out(function, "out", result, 5, shape, NPY_FLOAT32))) goto fail;
  bnn_pool pool = {&g, data_of(in), data_of(out), who ? PyArray_DATA(who) : NULL, (int)length[0]};
  int64_t rows = g.batch * to[0] * to[1];
  double work = (double)g.batch * (double)g.channels * (double)(volume(g.in) + volume(g.out));
  Py_BEGIN_ALLOW_THREADS;
  if (PyArray_SIZE(out) > 0) run_pass(pass, &pool, rows, work);
  Py_END_ALLOW_THREADS;
  Py_DECREF(in);
  if (traced) return Py_BuildValue("NN", out, who);
  Py_XDECREF(who);
  return (PyObject *)out;

fail:
  Py_XDECREF(in);
  Py_XDECREF(who);
  Py_XDECREF(out);
  return NULL;
}

static PyObject *max_pool(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "geometry", "traced", "out", NULL};
  PyObject *x, *geometry, *out = NULL;
  int traced;
  if (!PARSE("OOp|O:max_pool", &x, &geometry, &traced, &out)) return NULL;
  PyObject *y = pool_call(self, "max_pool", x, geometry, 0, kernels_of(self)->max_pool, NULL, traced, out);
  return !y || traced ? y : Py_BuildValue("NO", y, Py_None);
}

static PyObject *max_pool_grad(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"dy", "winner", "geometry", NULL};
  PyObject *dy, *winner, *geometry;
  if (!PARSE("OOO:max_pool_grad", &dy, &winner, &geometry)) return NULL;
  return pool_call(self, "max_pool_grad", dy, geometry, 1, kernels_of(self)->max_pool_grad, winner, 0, NULL);
}

static PyObject *average_pool(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "geometry", NULL};
  PyObject *x, *geometry;
  if (!PARSE("OO:average_pool", &x, &geometry)) return NULL;
  return pool_call(self, "average_pool", x, geometry, 0, kernels_of(self)->average_pool, NULL, 0, NULL);
}

static PyObject *average_pool_grad(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"dy", "geometry", NULL};
  PyObject *dy, *geometry;
  if (!PARSE("OO:average_pool_grad", &dy, &geometry)) return NULL;
  return pool_call(self, "average_pool_grad", dy, geometry, 1, kernels_of(self)->average_pool_grad, NULL, 0, NULL);
}

/* ---- rectifier ------------------------------------------------------------------------------------------------- */

static PyObject *rectify(PyObject *self, PyObject *args, PyObject *keywords) {
  static char *names[] = {"x", "limit", "last", "traced", NULL};
  PyObject *value;
  float limit, last;
  int traced;
  if (!PARSE("Offp:rectify", &value, &limit, &last, &traced)) return NULL;
  PyArrayObject *x = check_array("rectify", "x", value, NPY_FLOAT32), *y = x ? empty_like(x) : NULL;
  npy_intp words = x ? (npy_intp)bnn_words(PyArray_SIZE(x)) : 0;
  PyObject *mask = traced ? PyArray_EMPTY(1, &words, NPY_UINT32, 0) : Py_NewRef(Py_None);
  if (!y || !mask) {
    Py_XDECREF(x);
    Py_XDECREF(y);
    Py_XDECREF(mask);
    return NULL;
  }
  bnn_rectify rectify = {.count = PyArray_SIZE(x), .x = data_of(x), .limit = limit, .last = last, .y = data_of(y)};
  if (traced) rectify.mask = PyArray_DATA((PyArrayObject *)mask);
  Py_BEGIN_ALLOW_THREADS;
  run_pass(kernels_of(self)->rectify, &rectify, words, (double)rectify.count);
  Py_END_ALLOW_THREADS;
  Py_DECREF(x);
  return Py_BuildValue("NN", y, mask);
}

/* ---- updates --------------------------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  int states, coefficients;
} rules[BNN_RULES] = {
    [BNN_SGD] = {"sgd", 0, 1},   [BNN_MOMENTUM] = {"momentum", 1, 2}, [BNN_NESTEROV] = {"nesterov", 1, 2},
    [BNN_ADAM] = {"adam", 2, 4}, [BNN_AMSGRAD] = {"amsgrad", 3, 4},   [BNN_BOP] = {"bop", 1, 2},
};

/* The memory of an array of float32 in C order, of the shape of `like`; NULL if it is another kind of array. */
static float *floats_of(PyObject *value, PyArrayObject *like, int written) {
  PyArrayObject *array = (PyArrayObject *)value;
  if (!PyArray_Check(value) || PyArray_TYPE(array) != NPY_FLOAT32 || !PyArray_ISCARRAY_RO(array)) return NULL;
  if ((written && !PyArray_ISWRITEABLE(array)) || !PyArray_SAMESHAPE(array, like)) return NULL;
  return data_of(array);
}

static PyObject *update(PyObject *self, PyObject *args) {
  PyObject *name, *coefficients, *arrays;
  float limit = NPY_INFINITYF;
  if (!PyArg_ParseTuple(args, "OO!O!|f:update", &name, &PyTuple_Type, &coefficients, &PyTuple_Type, &arrays, &limit))
    return NULL;
  const char *choices[BNN_RULES + 1] = {NULL};
  for (int i = 0; i < BNN_RULES; i++) choices[i] = rules[i].name;
  int rule;
  if (check_choice("update", "rule", name, choices, &rule) < 0) return NULL;
  if (PyTuple_GET_SIZE(coefficients) != rules[rule].coefficients ||
      PyTuple_GET_SIZE(arrays) != 2 + rules[rule].states) {
    PyErr_Format(PyExc_ValueError, "update(): rule '%s' has %d coefficients and %d arrays, got %zd and %zd",
                 rules[rule].name, rules[rule].coefficients, 2 + rules[rule].states, PyTuple_GET_SIZE(coefficients),
                 PyTuple_GET_SIZE(arrays));
    return NULL;
  }
  bnn_update update = {.rule = (bnn_rule)rule, .limit = limit};
  PyArrayObject *like = (PyArrayObject *)PyTuple_GET_ITEM(arrays, 0);
  if (!PyArray_Check(like)) Py_RETURN_FALSE;
  float **at[] = {&update.value, NULL, &update.state[0], &update.state[1], &update.state[2]};
  int fits = (update.grad = floats_of(PyTuple_GET_ITEM(arrays, 1), like, 0)) != NULL;
  for (Py_ssize_t i = 0; fits && i < PyTuple_GET_SIZE(arrays); i++)
    if (i != 1) fits = (*at[i] = floats_of(PyTuple_GET_ITEM(arrays, i), like, 1)) != NULL;
  if (!fits) Py_RETURN_FALSE;
  for (int i = 0; i < rules[rule].coefficients; i++) {
    double number;
    if (check_float("update", "coefficients", PyTuple_GET_ITEM(coefficients, i), &number) < 0) return NULL;
    update.coefficient[i] = (float)number;
  }
  int64_t count = PyArray_SIZE(like);
  Py_BEGIN_ALLOW_THREADS;
  run_pass(kernels_of(self)->update, &update, count, (double)count);
  Py_END_ALLOW_THREADS;
  Py_RETURN_TRUE;
}

/* ---- method table ---------------------------------------------------------------------------------------------- */

#define METHOD(name, function, signature, doc)                                 \
  {                                                                            \
    name, (PyCFunction)(void (*)(void))function, METH_VARARGS | METH_KEYWORDS, \
        name "($self, " signature ")\n--\n\n" doc                              \
  }

PyMethodDef network_methods[] = {
    METHOD("moments", moments, "x, epsilon, mean=None, variance=None, rate=0.0, unbiased=1.0, rectified=False",
           "Mean, biased variance and 1 / sqrt(variance + epsilon) of each channel of rows.\n\n"
           "Here and in what follows x may also be int16, as xnor gives it.\n"
           "The averages mean and variance move towards them by a rate, where the variance is multiplied by unbiased.\n"
           "Rectified, here and in what follows, x counts as 0 unless it is positive or NaN."),
    METHOD("norm_sums", norm_sums, "x, dy, mean, inverse, mask=None, rectified=False, before=None, rows_before=0",
           "Gradients of shift and scale, mean of dy, and slope, for each channel of rows.\n\n"
           "The sums of the rows before are in before, to which those of x are added."),
    {"norm_rows", norm_rows, METH_VARARGS,
     "norm_rows($self, channels)\n--\n\nRows of a block of norm_sums; so many, or a multiple, may be summed apart."},
    METHOD("normalize", normalize, "x, mean, scale, shift, addend=None, rectified=False",
           "(x - mean) * scale + shift + addend, of numbers per channel and an addend like x."),
    METHOD("normalize_sign", normalize_sign, "x, mean, scale, shift, clip, addend=None, rectified=False, floats=False",
           "Signs of normalize() as words, words of where it is within clip, whether there is a NaN, and its floats."),
    METHOD("normalize_grad", normalize_grad,
           "x, dy, mean, scale, shift, slope, mask=None, out=None, add=False, rectified=False",
           "((dy - shift) - (x - mean) * slope) * scale, of numbers per channel; out may be x or dy.\n\n"
           "Rectified, it is 0 where x is not positive."),
    METHOD("max_pool", max_pool, "x, geometry, traced, out=None",
           "Largest value of each window, and bits of which tap it was."),
    METHOD("max_pool_grad", max_pool_grad, "dy, winner, geometry", "Gradient of max_pool."),
    METHOD("average_pool", average_pool, "x, geometry", "Mean of each window."),
    METHOD("average_pool_grad", average_pool_grad, "dy, geometry", "Gradient of average_pool."),
    METHOD("rectify", rectify, "x, limit, last, traced",
           "x clipped to [0, limit], and bits of 0 < x <= last in the order of memory."),
    {"update", update, METH_VARARGS,
     "update($self, rule, coefficients, arrays, limit=inf, /)\n--\n\nA step of an optimizer in place."},
    {NULL, NULL, 0, NULL},
};
