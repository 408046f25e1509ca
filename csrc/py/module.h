/* What the parts of the binding share. */
#ifndef BNN_MODULE_H
#define BNN_MODULE_H

#include "numpy_api.h" /* Python.h comes before every system header */

#include "../bnn.h"

/* One level, as a capsule that is the `self` of its functions and kept alive by its ufuncs. */
typedef struct {
  const bnn_kernels *kernels;
  struct bnn_ufuncs *ufuncs;
} bnn_variant;

#define BNN_VARIANT "bnnlayers._core.variant"

static inline const bnn_kernels *kernels_of(PyObject *self) {
  return ((bnn_variant *)PyCapsule_GetPointer(self, BNN_VARIANT))->kernels;
}

extern PyMethodDef conv_methods[], memory_methods[], network_methods[];

/* An array of words, floats or doubles, of which large ones begin on a line of the cache. */
PyArrayObject *memory_array(int axes, const npy_intp *shape, int type, int zeros);

/* Add every ufunc of the level to a dict. */
int ufuncs_add(PyObject *dict, PyObject *variant);

#endif
