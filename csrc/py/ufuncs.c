/* The ufuncs of ops.def, and xnor_matmul. */
#include "module.h"

#include <fenv.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* ---- elementwise ----------------------------------------------------------------------------------------------- */

enum { MAX_INPUTS = 4, CHUNK = 512 };

/* What one ufunc needs to live: NumPy keeps pointers into it. */
typedef struct {
  const bnn_kernels *kernels;
  int op, inputs;
  void *data[2];
  char types[2 * (MAX_INPUTS + 1)];
} loop_data;

struct bnn_ufuncs {
  void *matmul_data[1];
  loop_data loops[BNN_OPS];
};

static void gather(void *to, const char *from, npy_intp stride, npy_intp count, size_t item) {
  char *out = to;
  for (npy_intp i = 0; i < count; i++) {
    if (item == 4) /* literal sizes make a move of each copy */
      memcpy(out + 4 * i, from + i * stride, 4);
    else
      memcpy(out + 8 * i, from + i * stride, 8);
  }
}

static void scatter(char *to, npy_intp stride, const void *from, npy_intp count, size_t item) {
  const char *in = from;
  for (npy_intp i = 0; i < count; i++) {
    if (item == 4)
      memcpy(to + i * stride, in + 4 * i, 4);
    else
      memcpy(to + i * stride, in + 8 * i, 8);
  }
}

/* NumPy's strided loop around a kernel's contiguous one. An operand that is contiguous is passed on as it is; another
 * goes through a buffer, which a parameter (stride 0) fills only once. */
static void strided_loop(char **args, const npy_intp *dimensions, const npy_intp *steps, const loop_data *op,
                         npy_intp item) {
  double buffer[MAX_INPUTS + 1][CHUNK];
  const void *in[MAX_INPUTS];
  npy_intp n = dimensions[0], chunk = n;
  int inputs = op->inputs;
  for (int i = 0; i <= inputs; i++)
    if (steps[i] != item) chunk = CHUNK;
  for (int i = 0; i < inputs; i++)
    if (steps[i] == 0) gather(buffer[i], args[i], 0, n < CHUNK ? n : CHUNK, (size_t)item);

  for (npy_intp start = 0; start < n; start += chunk) {
    npy_intp count = n - start < chunk ? n - start : chunk;
    for (int i = 0; i < inputs; i++) {
      const char *from = args[i] + start * steps[i];
      in[i] = steps[i] == item ? (const void *)from : buffer[i];
      if (steps[i] != item && steps[i] != 0) gather(buffer[i], from, steps[i], count, (size_t)item);
    }
    char *to = args[inputs] + start * steps[inputs];
    void *out = steps[inputs] == item ? (void *)to : buffer[inputs];
    if (item == sizeof(float))
      op->kernels->loops_f32[op->op]((const float *const *)in, out, count);
    else
      op->kernels->loops_f64[op->op]((const double *const *)in, out, count);
    if (out != to) scatter(to, steps[inputs], out, count, (size_t)item);
  }
  if (fetestexcept(FE_ALL_EXCEPT)) feclearexcept(FE_ALL_EXCEPT); /* a NaN compared is no event to warn of */
}

static void loop_f32(char **args, const npy_intp *dimensions, const npy_intp *steps, void *data) {
  strided_loop(args, dimensions, steps, data, sizeof(float));
}

static void loop_f64(char **args, const npy_intp *dimensions, const npy_intp *steps, void *data) {
  strided_loop(args, dimensions, steps, data, sizeof(double));
}

static PyUFuncGenericFunction const elementwise_loops[] = {loop_f32, loop_f64};

static const struct {
  const char *name;
  int inputs;
  const char *doc;
} ops[] = {
#define BNN_OP(name, inputs, signature, doc) {#name, inputs, "Inputs: " signature ".\n\n" doc},
#include "../ops.def"
#undef BNN_OP
};

/* Steals the ufunc, which may be NULL after an error. */
static int add_ufunc(PyObject *dict, PyObject *variant, const char *name, PyObject *ufunc) {
  if (!ufunc) return -1;
  ((PyUFuncObject *)ufunc)->obj = Py_NewRef(variant);
  int status = PyDict_SetItemString(dict, name, ufunc);
  Py_DECREF(ufunc);
  return status;
}

static int add_elementwise(PyObject *dict, PyObject *variant, const bnn_kernels *kernels, loop_data *loops) {
  for (int i = 0; i < BNN_OPS; i++) {
    int operands = ops[i].inputs + 1;
    loops[i] = (loop_data){.kernels = kernels, .op = i, .inputs = ops[i].inputs, .data = {&loops[i], &loops[i]}};
    memset(loops[i].types, NPY_FLOAT32, (size_t)operands);
    memset(loops[i].types + operands, NPY_FLOAT64, (size_t)operands);
    PyObject *ufunc =
        PyUFunc_FromFuncAndData((PyUFuncGenericFunction *)elementwise_loops, loops[i].data, loops[i].types, 2,
                                ops[i].inputs, 1, PyUFunc_None, ops[i].name, ops[i].doc, 0);
    if (add_ufunc(dict, variant, ops[i].name, ufunc) < 0) return -1;
  }
  return 0;
}

/* ---- xnor_matmul ----------------------------------------------------------------------------------------------- */

static const char MATMUL_DOC[] =
    "Matrix product of the signs of two stacks of matrices, in 1-bit arithmetic.\n\n"
    "Zero and -0.0 count as +1; NaN raises ValueError.";

/* What the packed product of one pair of matrices needs, allocated once for the whole stack. */
typedef struct {
  void *dense;                  /* either operand, made contiguous */
  uint32_t *left, *right_words; /* canonical words */
  void *right;                  /* prepared */
  int32_t *out;
  bnn_schedule *schedule;
} matmul_memory;

static void matmul_free(matmul_memory *memory) {
  free(memory->dense);
  free(memory->left);
  free(memory->right_words);
  free(memory->right);
  free(memory->out);
  free(memory->schedule);
}

static int matmul_alloc(matmul_memory *memory, const bnn_kernels *kernels, const bnn_geometry *geometry,
                        const bnn_weights *weights, int64_t item) {
  int64_t m = geometry->in[2], k = geometry->channels, n = geometry->filters;
  *memory = (matmul_memory){.dense = run_alloc(item * k * (m > n ? m : n)),
                            .left = run_alloc(4 * m * bnn_words(k)),
                            .right_words = run_alloc(4 * n * bnn_words(k)),
                            .right = run_alloc((int64_t)kernels->prepared_size(weights)),
                            .out = run_alloc(4 * m * n),
                            .schedule = bnn_schedule_make(geometry, 0, 0)};
  if (memory->dense && memory->left && memory->right_words && memory->right && memory->out && memory->schedule)
    return 0;
  matmul_free(memory);
  return -1;
}

/* Pack `axis` 0 or 1 of a strided matrix. */
static int pack_matrix(const bnn_kernels *kernels, const char *x, const npy_intp *stride, const npy_intp *shape,
                       int axis, size_t item, void *dense, uint32_t *words) {
  const char *from = x;
  if (stride[1] != (npy_intp)item || stride[0] != shape[1] * (npy_intp)item) {
    char *to = dense;
    for (npy_intp i = 0; i < shape[0]; i++)
      for (npy_intp j = 0; j < shape[1]; j++, to += item) memcpy(to, x + i * stride[0] + j * stride[1], item);
    from = dense;
  }
  bnn_pack pack = {
      .x = from, .outer = axis ? shape[0] : 1, .count = shape[axis], .inner = axis ? 1 : shape[1], .words = words};
  return run_pack(kernels, item == sizeof(double), &pack);
}

static int matmul_raise(PyObject *type, const char *text) {
  NPY_ALLOW_C_API_DEF
  NPY_ALLOW_C_API;
  PyErr_SetString(type, text);
  NPY_DISABLE_C_API;
  return -1;
}

/* A new-style loop, since only those can fail: an error set by the old kind is lost. */
static int matmul_loop(PyArrayMethod_Context *context, char *const *data, const npy_intp *dimensions,
                       const npy_intp *strides, NpyAuxData *unused) {
  (void)unused;
  const bnn_kernels *kernels = ((PyUFuncObject *)context->caller)->data[0];
  size_t item = (size_t)PyDataType_ELSIZE(context->descriptors[0]);
  npy_intp stack = dimensions[0], m = dimensions[1], k = dimensions[2], n = dimensions[3];
  const npy_intp *left_stride = strides + 3, *right_stride = strides + 5, *out_stride = strides + 7;
  if (stack == 0 || m == 0 || n == 0) return 0;

  bnn_geometry geometry = {.batch = 1,
                           .groups = 1,
                           .channels = k,
                           .filters = n,
                           .in = {1, 1, m},
                           .out = {1, 1, m},
                           .kernel = {1, 1, 1},
                           .stride = {1, 1, 1},
                           .dilation = {1, 1, 1}};
  if (bnn_geometry_error(&geometry)) return matmul_raise(PyExc_ValueError, "xnor_matmul(): the matrices are too large");
  bnn_weights weights = {.planes = 1, .taps = 1, .groups = 1, .channels = k, .filters = n};
  matmul_memory memory;
  if (matmul_alloc(&memory, kernels, &geometry, &weights, (int64_t)item) < 0)
    return matmul_raise(PyExc_MemoryError, "xnor_matmul(): out of memory");
  bnn_product product = {.schedule = memory.schedule,
                         .images = 1,
                         .groups = 1,
                         .depth = k,
                         .columns = n,
                         .left = memory.left,
                         .right = memory.right,
                         .out = memory.out,
                         .out_type = BNN_INT32,
                         .left_planes = 1,
                         .right_planes = 1};
  double work = (double)m * (double)n * (double)bnn_words(k);

  PyObject *error = NULL;
  for (npy_intp i = 0; i < stack && !error; i++) {
    int nan = 0;
    if (k == 0) memset(memory.out, 0, sizeof(int32_t) * (size_t)(m * n));
    if (i == 0 || strides[0] != 0)
      nan |= pack_matrix(kernels, data[0] + i * strides[0], left_stride, (npy_intp[]){m, k}, 1, item, memory.dense,
                         memory.left);
    if (i == 0 || strides[1] != 0) {
      nan |= pack_matrix(kernels, data[1] + i * strides[1], right_stride, (npy_intp[]){k, n}, 0, item, memory.dense,
                         memory.right_words);
      kernels->prepare(&weights, memory.right_words, memory.right);
    }
    if (nan) error = PyExc_ValueError;
    if (!nan && k > 0 && run_product(&kernels->xnor, &product, work) < 0) error = PyExc_MemoryError;
    for (npy_intp row = 0; row < m && !error; row++)
      for (npy_intp column = 0; column < n; column++)
        memcpy(data[2] + i * strides[2] + row * out_stride[0] + column * out_stride[1], &memory.out[row * n + column],
               sizeof(int32_t));
  }
  matmul_free(&memory);
  if (!error) return 0;
  return matmul_raise(error, error == PyExc_ValueError ? "xnor_matmul(): the operands must be numbers, got NaN"
                                                       : "xnor_matmul(): out of memory");
}

/* Inputs of other types are promoted with float32, as the elementwise ufuncs do. */
static int matmul_promote(PyObject *ufunc, PyArray_DTypeMeta *const given[], PyArray_DTypeMeta *const signature[],
                          PyArray_DTypeMeta *promoted[]) {
  (void)ufunc, (void)signature;
  PyArray_DTypeMeta *common = PyArray_CommonDType(given[0], given[1]);
  PyArray_DTypeMeta *real = common ? PyArray_CommonDType(common, &PyArray_FloatDType) : NULL;
  Py_XDECREF(common);
  if (!real) return -1;
  if (real != &PyArray_FloatDType && real != &PyArray_DoubleDType) {
    PyErr_Format(PyExc_TypeError, "xnor_matmul(): the operands must be arrays of real numbers, float64 at most, got %R",
                 (PyObject *)real);
    Py_DECREF(real);
    return -1;
  }
  promoted[0] = real;
  promoted[1] = (PyArray_DTypeMeta *)Py_NewRef(real);
  promoted[2] = (PyArray_DTypeMeta *)Py_NewRef(&PyArray_Int32DType);
  return 0;
}

static int add_matmul_loop(PyObject *ufunc, PyArray_DTypeMeta *type) {
  PyArray_DTypeMeta *types[] = {type, type, &PyArray_Int32DType};
  PyType_Slot slots[] = {{NPY_METH_strided_loop, (void *)matmul_loop}, {0, NULL}};
  PyArrayMethod_Spec spec = {.name = "xnor_matmul",
                             .nin = 2,
                             .nout = 1,
                             .casting = NPY_NO_CASTING,
                             .flags = NPY_METH_NO_FLOATINGPOINT_ERRORS,
                             .dtypes = types,
                             .slots = slots};
  return PyUFunc_AddLoopFromSpec(ufunc, &spec);
}

static int add_matmul(PyObject *dict, PyObject *variant, const bnn_kernels *kernels, void **data) {
  data[0] = (void *)kernels;
  PyObject *ufunc = PyUFunc_FromFuncAndDataAndSignature(NULL, data, NULL, 0, 2, 1, PyUFunc_None, "xnor_matmul",
                                                        MATMUL_DOC, 0, "(m,k),(k,n)->(m,n)");
  PyObject *promoter = PyCapsule_New((void *)matmul_promote, "numpy._ufunc_promoter", NULL);
  PyObject *any = PyTuple_Pack(3, Py_None, Py_None, Py_None);
  int status = -1;
  if (ufunc && promoter && any && add_matmul_loop(ufunc, &PyArray_FloatDType) == 0 &&
      add_matmul_loop(ufunc, &PyArray_DoubleDType) == 0 && PyUFunc_AddPromoter(ufunc, any, promoter) == 0)
    status = add_ufunc(dict, variant, "xnor_matmul", Py_NewRef(ufunc));
  Py_XDECREF(ufunc);
  Py_XDECREF(promoter);
  Py_XDECREF(any);
  return status;
}

int ufuncs_add(PyObject *dict, PyObject *capsule) {
  bnn_variant *variant = PyCapsule_GetPointer(capsule, BNN_VARIANT);
  if (!variant) return -1;
  variant->ufuncs = calloc(1, sizeof *variant->ufuncs);
  if (!variant->ufuncs) {
    PyErr_NoMemory();
    return -1;
  }
  if (add_elementwise(dict, capsule, variant->kernels, variant->ufuncs->loops) < 0) return -1;
  return add_matmul(dict, capsule, variant->kernels, variant->ufuncs->matmul_data);
}
