/* The module: one namespace of functions per level, and the best level's at the top. */
#define BNN_IMPORTS_NUMPY
#include "module.h"

#include <limits.h>
#include <stdatomic.h>
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

#if PY_VERSION_HEX < 0x030D0000
#define Py_IsFinalizing _Py_IsFinalizing
#endif

typedef struct {
  PyObject *function;
  atomic_int failed;
  PyObject *type, *value, *trace; /* of the call that failed first */
} shared_calls;

static void run_shared_calls(void *context, int thread, int64_t begin, int64_t end) {
  (void)thread;
  shared_calls *calls = context;
  PyGILState_STATE state = PyGILState_Ensure();
  for (int64_t i = begin; i < end && !atomic_load(&calls->failed); i++) {
    PyObject *result = PyObject_CallFunction(calls->function, "L", (long long)i);
    Py_XDECREF(result);
    if (result) continue;
    if (atomic_exchange(&calls->failed, 1))
      PyErr_Clear();
    else
      PyErr_Fetch(&calls->type, &calls->value, &calls->trace);
  }
  PyGILState_Release(state);
}

static PyObject *share(PyObject *self, PyObject *args) {
  (void)self;
  shared_calls calls = {0};
  PyObject *count_arg;
  int64_t count;
  if (!PyArg_ParseTuple(args, "OO:share", &calls.function, &count_arg) ||
      check_int("share", "count", count_arg, 0, INT_MAX, &count) < 0)
    return NULL;
  if (!PyCallable_Check(calls.function))
    return PyErr_Format(PyExc_TypeError, "share(): argument 'function' must be callable, got %.200s",
                        Py_TYPE(calls.function)->tp_name);
  int threads = Py_IsFinalizing() ? 1 : bnn_get_threads(); /* no other thread gets the GIL any more */
  Py_BEGIN_ALLOW_THREADS;
  bnn_parallel(threads, count, 1, run_shared_calls, &calls);
  Py_END_ALLOW_THREADS;
  if (!calls.failed) Py_RETURN_NONE;
  PyErr_Restore(calls.type, calls.value, calls.trace);
  return NULL;
}

static PyMethodDef thread_methods[] = {
    {"get_num_threads", get_num_threads, METH_NOARGS,
     "get_num_threads($self)\n--\n\nThreads that a large call runs on."},
    {"set_num_threads", set_num_threads, METH_O,
     "set_num_threads($self, count, /)\n--\n\nSet how many threads a large call runs on, in this process."},
    {"share", share, METH_VARARGS,
     "share($self, function, count, /)\n--\n\nCall a function of one argument with 0, 1, ..., count - 1, each once, "
     "on the threads of large calls."},
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
