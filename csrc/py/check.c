#include "check.h"

#include "module.h"

/* Steals `got`; either may be NULL after a failed conversion to text, whose exception then stands. */
static void raise(PyObject *type, const char *function, const char *argument, PyObject *expected, PyObject *got) {
  if (expected && got) PyErr_Format(type, "%s(): argument '%s' must be %U, got %U", function, argument, expected, got);
  Py_XDECREF(expected);
  Py_XDECREF(got);
}

static PyObject *describe_type(PyObject *value) {
  if (PyArray_Check(value)) return PyUnicode_FromFormat("%S array", (PyObject *)PyArray_DESCR((PyArrayObject *)value));
  return PyUnicode_FromString(Py_TYPE(value)->tp_name);
}

static PyObject *shape_text(int axes, const npy_intp *shape) {
  PyObject *tuple = PyTuple_New(axes);
  if (!tuple) return NULL;
  for (int i = 0; i < axes; i++) {
    PyObject *length = PyLong_FromSsize_t(shape[i]);
    if (!length) {
      Py_DECREF(tuple);
      return NULL;
    }
    PyTuple_SET_ITEM(tuple, i, length);
  }
  PyObject *text = PyObject_Repr(tuple);
  Py_DECREF(tuple);
  return text;
}

static PyObject *describe_shape(PyArrayObject *array) {
  PyObject *shape = shape_text(PyArray_NDIM(array), PyArray_DIMS(array));
  PyObject *text = shape ? PyUnicode_FromFormat("shape %U", shape) : NULL;
  Py_XDECREF(shape);
  return text;
}

void check_raise(PyObject *type, const char *function, const char *argument, PyObject *value, const char *expected) {
  raise(type, function, argument, PyUnicode_FromString(expected), PyUnicode_FromFormat("%R", value));
}

/* ---- arrays ---------------------------------------------------------------------------------------------------- */

static PyArrayObject *as_array(const char *function, const char *argument, PyObject *value) {
  PyObject *array = PyArray_FROM_O(value);
  if (!array && (PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_TypeError))) {
    PyObject *type = PyErr_ExceptionMatches(PyExc_TypeError) ? PyExc_TypeError : PyExc_ValueError;
    PyErr_Clear();
    raise(type, function, argument, PyUnicode_FromString("an array of numbers"), describe_type(value));
  }
  return (PyArrayObject *)array;
}

/* Steals the array. */
static PyArrayObject *canonical(PyArrayObject *array, int type) {
  int flags = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_ENSUREARRAY;
  PyObject *result = PyArray_FromArray(array, PyArray_DescrFromType(type), flags);
  Py_DECREF(array);
  return (PyArrayObject *)result;
}

PyArrayObject *check_array(const char *function, const char *argument, PyObject *value, int type) {
  PyArrayObject *given = (PyArrayObject *)value; /* which mostly will do as it is */
  if (PyArray_CheckExact(value) && PyArray_TYPE(given) == type && PyArray_ISCARRAY_RO(given))
    return (PyArrayObject *)Py_NewRef(value);
  PyArrayObject *array = as_array(function, argument, value);
  if (!array) return NULL;
  if (PyArray_EquivTypenums(PyArray_TYPE(array), type)) return canonical(array, type);
  PyArray_Descr *descr = PyArray_DescrFromType(type);
  raise(PyExc_TypeError, function, argument, PyUnicode_FromFormat("a %S array", (PyObject *)descr),
        describe_type((PyObject *)array));
  Py_DECREF(descr);
  Py_DECREF(array);
  return NULL;
}

PyArrayObject *check_real(const char *function, const char *argument, PyObject *value) {
  PyArrayObject *array = as_array(function, argument, value);
  if (!array) return NULL;
  int type = PyArray_TYPE(array);
  if (PyTypeNum_ISINTEGER(type) || type == NPY_BOOL || type == NPY_HALF) {
    PyArray_Descr *single = PyArray_DescrFromType(NPY_FLOAT32);
    PyArray_Descr *promoted = PyArray_PromoteTypes(PyArray_DESCR(array), single);
    Py_DECREF(single);
    if (!promoted) {
      Py_DECREF(array);
      return NULL;
    }
    type = promoted->type_num;
    Py_DECREF(promoted);
  }
  if (type == NPY_FLOAT32 || type == NPY_FLOAT64) return canonical(array, type);
  raise(PyExc_TypeError, function, argument, PyUnicode_FromString("an array of real numbers, float64 at most"),
        describe_type((PyObject *)array));
  Py_DECREF(array);
  return NULL;
}

static PyObject *length_text(int64_t length) {
  return length == CHECK_ANY ? PyUnicode_FromString("any") : PyUnicode_FromFormat("%lld", (long long)length);
}

static PyObject *describe_expected(const check_shape_of *expected) {
  PyObject *parts = PyList_New(0);
  PyObject *comma = PyUnicode_FromString(", ");
  PyObject *text = NULL;
  int count = expected->has_first + 1 + expected->sizes;
  int good = parts && comma;
  for (int i = 0; good && i < count; i++) {
    int is_first = expected->has_first && i == 0;
    int index = i - expected->has_first - 1;
    PyObject *part = is_first    ? length_text(expected->first)
                     : index < 0 ? PyUnicode_FromString("...")
                                 : length_text(expected->size[index]);
    good = part && PyList_Append(parts, part) == 0;
    Py_XDECREF(part);
  }
  PyObject *joined = good ? PyUnicode_Join(comma, parts) : NULL;
  if (joined && expected->middle == CHECK_ANY) text = PyUnicode_FromFormat("of shape (%U)", joined);
  if (joined && expected->middle != CHECK_ANY)
    text = PyUnicode_FromFormat("of shape (%U) with %lld items along '...'", joined, (long long)expected->middle);
  Py_XDECREF(joined);
  Py_XDECREF(parts);
  Py_XDECREF(comma);
  return text;
}

static int fits(PyArrayObject *array, const check_shape_of *expected) {
  int axes = PyArray_NDIM(array);
  const npy_intp *shape = PyArray_DIMS(array);
  if (axes < expected->has_first + expected->sizes) return 0;
  if (expected->has_first && expected->first != CHECK_ANY && shape[0] != expected->first) return 0;
  int end = axes - expected->sizes;
  for (int i = 0; i < expected->sizes; i++)
    if (expected->size[i] != CHECK_ANY && shape[end + i] != expected->size[i]) return 0;
  if (expected->middle == CHECK_ANY) return 1;
  int64_t middle = 1;
  for (int i = expected->has_first; i < end; i++)
    if (__builtin_mul_overflow(middle, (int64_t)shape[i], &middle)) return 0;
  return middle == expected->middle;
}

int check_shape(const char *function, const char *argument, PyArrayObject *array, const check_shape_of *expected) {
  if (fits(array, expected)) return 0;
  raise(PyExc_ValueError, function, argument, describe_expected(expected), describe_shape(array));
  return -1;
}

int check_exact_shape(const char *function, const char *argument, PyArrayObject *array, int axes,
                      const npy_intp *expected) {
  if (PyArray_NDIM(array) == axes && PyArray_CompareLists(PyArray_DIMS(array), expected, axes)) return 0;
  PyObject *shape = shape_text(axes, expected);
  raise(PyExc_ValueError, function, argument, shape ? PyUnicode_FromFormat("of shape %U", shape) : NULL,
        describe_shape(array));
  Py_XDECREF(shape);
  return -1;
}

PyArrayObject *check_out(const char *function, const char *argument, PyObject *value, int axes, const npy_intp *shape,
                         int type) {
  if (!value || value == Py_None) return memory_array(axes, shape, type, 0);
  PyArrayObject *out = (PyArrayObject *)value;
  if (!PyArray_Check(value) || PyArray_TYPE(out) != type || !PyArray_ISCARRAY(out)) {
    PyArray_Descr *descr = PyArray_DescrFromType(type);
    if (descr)
      raise(PyExc_TypeError, function, argument, PyUnicode_FromFormat("a writable C array of dtype %S", descr),
            PyArray_Check(value) ? describe_shape(out) : describe_type(value));
    Py_XDECREF(descr);
    return NULL;
  }
  if (check_exact_shape(function, argument, out, axes, shape) < 0) return NULL;
  return (PyArrayObject *)Py_NewRef(value);
}

/* ---- numbers --------------------------------------------------------------------------------------------------- */

int check_int(const char *function, const char *argument, PyObject *value, int64_t low, int64_t high, int64_t *result) {
  PyObject *index = PyNumber_Index(value);
  if (!index) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return -1;
    PyErr_Clear();
    raise(PyExc_TypeError, function, argument, PyUnicode_FromString("an integer"), describe_type(value));
    return -1;
  }
  int overflow;
  *result = PyLong_AsLongLongAndOverflow(index, &overflow);
  Py_DECREF(index);
  if (*result == -1 && PyErr_Occurred()) return -1;
  if (!overflow && *result >= low && *result <= high) return 0;
  PyObject *expected = overflow <= 0 && (overflow || *result < low)
                           ? PyUnicode_FromFormat("at least %lld", (long long)low)
                           : PyUnicode_FromFormat("at most %lld", (long long)high);
  raise(PyExc_ValueError, function, argument, expected, PyUnicode_FromFormat("%R", value));
  return -1;
}

int check_axis(const char *function, PyObject *value, int axes, int *axis) {
  int64_t index;
  if (check_int(function, "axis", value, INT64_MIN, INT64_MAX, &index) < 0) return -1;
  if (index >= -axes && index < axes) {
    *axis = (int)(index < 0 ? index + axes : index);
    return 0;
  }
  raise(PyExc_ValueError, function, "axis", PyUnicode_FromFormat("an axis of an array of %d axes", axes),
        PyUnicode_FromFormat("%R", value));
  return -1;
}

int check_float(const char *function, const char *argument, PyObject *value, double *result) {
  *result = PyFloat_AsDouble(value);
  if (*result != -1.0 || !PyErr_Occurred()) return 0;
  if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
  PyObject *type = PyErr_ExceptionMatches(PyExc_TypeError) ? PyExc_TypeError : PyExc_ValueError;
  PyErr_Clear();
  raise(type, function, argument, PyUnicode_FromString("a number in the range of float64"), describe_type(value));
  return -1;
}

int check_choice(const char *function, const char *argument, PyObject *value, const char *const *choices, int *index) {
  if (!PyUnicode_Check(value)) {
    raise(PyExc_TypeError, function, argument, PyUnicode_FromString("a text"), describe_type(value));
    return -1;
  }
  for (*index = 0; choices[*index]; ++*index)
    if (PyUnicode_CompareWithASCIIString(value, choices[*index]) == 0) return 0;
  PyObject *expected = PyUnicode_FromFormat("'%s'", choices[0]);
  for (int i = 1; expected && choices[i]; i++)
    Py_SETREF(expected, PyUnicode_FromFormat("%U%s'%s'", expected, choices[i + 1] ? ", " : " or ", choices[i]));
  raise(PyExc_ValueError, function, argument, expected, PyUnicode_FromFormat("%R", value));
  return -1;
}

int check_sign_pad(const char *function, PyObject *value, double *result) {
  if (check_float(function, "pad", value, result) < 0) return -1;
  if (*result == 0 || *result == 1 || *result == -1) return 0;
  check_raise(PyExc_ValueError, function, "pad", value, "0, 1 or -1");
  return -1;
}

int check_dtype(const char *function, PyObject *value, const int *types, int *type) {
  PyArray_Descr *descr = NULL;
  if (value == Py_None || PyArray_DescrConverter(value, &descr) == NPY_FAIL) {
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError))
      return -1;
    PyErr_Clear();
  } else {
    *type = descr->type_num;
    Py_DECREF(descr);
    for (const int *one = types; *one != NPY_NOTYPE; one++)
      if (PyArray_EquivTypenums(*type, *one)) return *type = *one, 0;
  }
  PyObject *expected = NULL;
  for (const int *one = types; *one != NPY_NOTYPE; one++) {
    PyObject *name = (PyObject *)PyArray_DescrFromType(*one);
    const char *before = !expected ? "" : one[1] == NPY_NOTYPE ? " or " : ", ";
    Py_XSETREF(expected, PyUnicode_FromFormat("%V%s%S", expected, "", before, name));
    Py_DECREF(name);
    if (!expected) return -1;
  }
  raise(PyExc_TypeError, function, "dtype", expected, PyUnicode_FromFormat("%R", value));
  return -1;
}

static int read_triple(const char *function, PyObject *value, int64_t triple[3]) {
  if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 3) {
    raise(PyExc_TypeError, function, "geometry",
          PyUnicode_FromString("a Geometry, with a tuple of three per axis field"), PyUnicode_FromFormat("%R", value));
    return -1;
  }
  for (int i = 0; i < 3; i++)
    if (check_int(function, "geometry", PyTuple_GET_ITEM(value, i), INT64_MIN, INT64_MAX, &triple[i]) < 0) return -1;
  return 0;
}

int check_geometry(const char *function, PyObject *value, bnn_geometry *g) {
  int64_t *scalars[] = {&g->batch, &g->groups, &g->channels, &g->filters};
  int64_t *triples[] = {g->in, g->out, g->kernel, g->stride, g->dilation, g->pad};
  if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 10) {
    raise(PyExc_TypeError, function, "geometry", PyUnicode_FromString("a Geometry"), describe_type(value));
    return -1;
  }
  for (int i = 0; i < 4; i++)
    if (check_int(function, "geometry", PyTuple_GET_ITEM(value, i), INT64_MIN, INT64_MAX, scalars[i]) < 0) return -1;
  for (int i = 0; i < 6; i++)
    if (read_triple(function, PyTuple_GET_ITEM(value, 4 + i), triples[i]) < 0) return -1;
  const char *error = bnn_geometry_error(g);
  if (!error) return 0;
  PyErr_Format(PyExc_ValueError, "%s(): argument 'geometry' must be sound: %s, got %R", function, error, value);
  return -1;
}

int check_count(const char *function, int factors, const int64_t *factor, int64_t *result) {
  *result = 1;
  int overflow = 0;
  for (int i = 0; i < factors; i++) {
    if (factor[i] == 0) return *result = 0, 0;
    overflow |= __builtin_mul_overflow(*result, factor[i], result);
  }
  if (!overflow && *result <= PTRDIFF_MAX / 8) return 0;
  PyErr_Format(PyExc_ValueError, "%s(): the sizes asked for exceed the address space", function);
  return -1;
}
