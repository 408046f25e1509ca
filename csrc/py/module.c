/* The module: one namespace of functions per level, and the best level's at the top. */
#define BNN_IMPORTS_NUMPY
#include "module.h"

#include <limits.h>
#include <stdlib.h>

#include "../threads.h"
#include "check.h"

static PyObject *get_num_threads(PyObject *self, PyObject *unused) {
  (void)self, (void)unused;
  return PyLong_FromLong(bnn_get_threads());
}

static PyObject *set_num_threads(PyObject *self, PyObject *count_arg) {
  (void)self;
  int64_t count;
  if (check_int("set_num_threads", "count", count_arg, 1, INT_MAX, &count) < 0) return NULL;
  bnn_set_threads((int)count);
  Py_RETURN_NONE;
}

static PyMethodDef thread_methods[] = {
    {"get_num_threads", get_num_threads, METH_NOARGS,
     "get_num_threads($self)\n--\n\nThreads that a large call runs on."},
    {"set_num_threads", set_num_threads, METH_O,
     "set_num_threads($self, count, /)\n--\n\nSet how many threads a large call runs on, in this process."},
    {NULL, NULL, 0, NULL},
};

static int add_methods(PyObject *dict, PyMethodDef *methods, PyObject *self, PyObject *module_name) {
  for (; methods->ml_name; methods++) {
    PyObject *function = PyCFunction_NewEx(methods, self, module_name);
    int status = function ? PyDict_SetItemString(dict, methods->ml_name, function) : -1;
    Py_XDECREF(function);
    if (status < 0) return -1;
  }
  return 0;
}

static void free_variant(PyObject *capsule) {
  bnn_variant *variant = PyCapsule_GetPointer(capsule, BNN_VARIANT);
  free(variant->ufuncs);
  free(variant);
}

static PyObject *make_variant(const bnn_kernels *kernels) {
  bnn_variant *variant = calloc(1, sizeof *variant);
  if (!variant) return PyErr_NoMemory();
  variant->kernels = kernels;
  PyObject *capsule = PyCapsule_New(variant, BNN_VARIANT, free_variant);
  if (!capsule) free(variant);
  return capsule;
}

/* A dict of everything that a level offers. */
static PyObject *level_dict(const bnn_kernels *kernels, PyObject *module_name) {
  PyObject *dict = PyDict_New(), *variant = make_variant(kernels), *level = PyUnicode_FromString(kernels->level);
  int good = dict && variant && level && PyDict_SetItemString(dict, "level", level) == 0 &&
             ufuncs_add(dict, variant) == 0 && add_methods(dict, conv_methods, variant, module_name) == 0 &&
             add_methods(dict, network_methods, variant, module_name) == 0 &&
             add_methods(dict, memory_methods, variant, module_name) == 0 &&
             add_methods(dict, thread_methods, variant, module_name) == 0;
  Py_XDECREF(variant);
  Py_XDECREF(level);
  if (!good) Py_CLEAR(dict);
  return dict;
}

static int add_levels(PyObject *module, PyObject *variants, PyObject *namespace_type, PyObject *module_name) {
  PyObject *nothing = PyTuple_New(0);
  int status = nothing ? 0 : -1;
  const bnn_kernels *const *kernels = bnn_supported();
  for (int i = 0; kernels[i] && status == 0; i++) {
    PyObject *dict = level_dict(kernels[i], module_name);
    PyObject *level = dict ? PyObject_Call(namespace_type, nothing, dict) : NULL;
    if (!level || PyDict_SetItemString(variants, kernels[i]->level, level) < 0 ||
        (i == 0 && PyDict_Update(PyModule_GetDict(module), dict) < 0))
      status = -1;
    Py_XDECREF(level);
    Py_XDECREF(dict);
  }
  Py_XDECREF(nothing);
  return status;
}

static int module_exec(PyObject *module) {
  import_array1(-1);
  import_umath1(-1);
  PyObject *types = PyImport_ImportModule("types");
  PyObject *namespace_type = types ? PyObject_GetAttrString(types, "SimpleNamespace") : NULL;
  PyObject *module_name = PyModule_GetNameObject(module), *variants = PyDict_New();
  int status =
      namespace_type && module_name && variants ? add_levels(module, variants, namespace_type, module_name) : -1;
  if (status == 0) status = PyModule_AddObjectRef(module, "variants", variants);
  Py_XDECREF(types);
  Py_XDECREF(namespace_type);
  Py_XDECREF(module_name);
  Py_XDECREF(variants);
  return status;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bnnlayers._core",
    .m_doc = "1-bit arithmetic: arrays in, arrays out.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
