// The extension module: importing it loads the library, whose static initialisers register the CPU kernels.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "allocate.h"
#include "checksum.h"

namespace {

PyObject* release_memory(PyObject*, PyObject*) { return PyLong_FromSize_t(deeplift_fast::release_memory()); }

PyObject* keep_memory(PyObject*, PyObject* keep) {
    const int wanted = PyObject_IsTrue(keep);
    return wanted < 0 ? nullptr : PyBool_FromLong(deeplift_fast::keep_memory(wanted != 0));
}

PyObject* checksum(PyObject*, PyObject* given) {
    unsigned long long address = 0;
    Py_ssize_t bytes = 0;
    if (!PyArg_ParseTuple(given, "Kn", &address, &bytes)) return nullptr;
    std::uint64_t found = 0;
    Py_BEGIN_ALLOW_THREADS;
    found = deeplift_fast::checksum(reinterpret_cast<const void*>(address), static_cast<std::size_t>(bytes));
    Py_END_ALLOW_THREADS;
    return PyLong_FromUnsignedLongLong(found);
}

PyMethodDef methods[] = {
    {"checksum", checksum, METH_VARARGS, "A number that changes with memory: its address and its bytes."},
    {"release_memory", release_memory, METH_NOARGS, "Gives the memory kept for results back; returns its bytes."},
    {"keep_memory", keep_memory, METH_O, "Whether results take kept memory from now on; returns the last answer."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C(void) {
    static PyModuleDef module = {PyModuleDef_HEAD_INIT,
                                 "_C",
                                 "C++ kernels of deeplift_fast for the CPU",
                                 -1,
                                 methods,
                                 nullptr,
                                 nullptr,
                                 nullptr,
                                 nullptr};
    return PyModule_Create(&module);
}
