/* Arguments in, C values out. The only place that words errors: "f(): argument 'x' must be ..., got ...".
 *
 * Every function returns NULL or -1 with an exception set when the argument is unsound: TypeError for a wrong kind,
 * ValueError for a wrong shape or value.
 */
#ifndef BNN_CHECK_H
#define BNN_CHECK_H

#include "numpy_api.h" /* Python.h comes before every system header */

#include "../bnn.h"

/* New references to base-class arrays, C-contiguous, aligned and in native byte order; copied only when they are not.
 * check_array wants exactly `type`; check_real promotes integers and float16 as NumPy does, to float32 or float64. */
PyArrayObject *check_array(const char *function, const char *argument, PyObject *value, int type);
PyArrayObject *check_real(const char *function, const char *argument, PyObject *value);

#define CHECK_ANY (-1)

/* The shape (first, <axes that hold `middle` items>, size[0], size[1], ...); CHECK_ANY accepts every length. */
typedef struct {
  int has_first;
  int64_t first;
  int64_t middle;
  int sizes;
  int64_t size[2];
} check_shape_of;

int check_shape(const char *function, const char *argument, PyArrayObject *array, const check_shape_of *expected);
int check_exact_shape(const char *function, const char *argument, PyArrayObject *array, int axes,
                      const npy_intp *expected);
/* Where a result goes: a new array if `value` is NULL or None, else `value` itself, which may be an operand. */
PyArrayObject *check_out(const char *function, const char *argument, PyObject *value, int axes, const npy_intp *shape,
                         int type);

int check_int(const char *function, const char *argument, PyObject *value, int64_t low, int64_t high, int64_t *result);
int check_axis(const char *function, PyObject *value, int axes, int *axis);
int check_float(const char *function, const char *argument, PyObject *value, double *result);
/* The index of a text in a NULL-terminated list of them. */
int check_choice(const char *function, const char *argument, PyObject *value, const char *const *choices, int *index);
/* The pad value of a packed operand: 0, 1 or -1. */
int check_sign_pad(const char *function, PyObject *value, double *result);
/* One of two type numbers. */
int check_dtype(const char *function, PyObject *value, const int *types, int *type);
int check_geometry(const char *function, PyObject *value, bnn_geometry *geometry);

/* The product of the factors (none negative), if arrays of that many items of 8 bytes can exist. */
int check_count(const char *function, int factors, const int64_t *factor, int64_t *result);

/* "f(): argument 'x' must be <expected>, got <value>" with a repr of the value. */
void check_raise(PyObject *type, const char *function, const char *argument, PyObject *value, const char *expected);

#endif
