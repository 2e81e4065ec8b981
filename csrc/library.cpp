// The extension module: importing it loads the library, whose static initialisers register the CPU kernels.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C(void) {
    static PyModuleDef module = {PyModuleDef_HEAD_INIT,
                                 "_C",
                                 "C++ kernels of deeplift_fast for the CPU",
                                 -1,
                                 nullptr,
                                 nullptr,
                                 nullptr,
                                 nullptr,
                                 nullptr};
    return PyModule_Create(&module);
}
