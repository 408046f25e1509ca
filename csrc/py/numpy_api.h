/* The one place that includes Python and NumPy, so that every source sees the same API version and symbol. */
#ifndef BNN_NUMPY_API_H
#define BNN_NUMPY_API_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_1_API_VERSION
#define NPY_TARGET_VERSION NPY_2_1_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL bnnlayers_array_api
#define PY_UFUNC_UNIQUE_SYMBOL bnnlayers_ufunc_api
#ifndef BNN_IMPORTS_NUMPY /* defined by module.c, which holds the tables and fills them */
#define NO_IMPORT_ARRAY
#define NO_IMPORT_UFUNC
#endif
#include <numpy/arrayobject.h>
#include <numpy/dtype_api.h>
#include <numpy/ufuncobject.h>

#endif
