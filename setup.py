"""Builds the C++ kernels; a machine without a compiler gets the package without them.

With the library the wheel is one for every CPython from 3.12 on; without it, one for every platform.
`DEEPLIFT_FAST_REQUIRE_CPP=1` makes a failed build fatal.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

SOURCES = Path("csrc")
REQUIRE_CPP = os.environ.get("DEEPLIFT_FAST_REQUIRE_CPP", "0") not in ("", "0")


def extension():
    from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths

    class Build(BuildExtension):
        """Lets the install go on without the library unless it is required."""

        def run(self):
            try:
                super().run()
            except Exception as error:
                if REQUIRE_CPP:
                    raise
                self.extensions = []  # or an editable install would look for the missing file
                self._wheel_is_pure()
                print(
                    f"warning: the C++ kernels were not built ({error}); deeplift_fast runs on plain torch",
                    file=sys.stderr,
                )

        def _wheel_is_pure(self):
            self.distribution.ext_modules = []
            wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
            if wheel is not None:
                wheel.root_is_pure = True

    library = CppExtension(
        "deeplift_fast._C",
        sorted(map(str, SOURCES.glob("*.cpp"))),
        depends=sorted(map(str, SOURCES.glob("*.h"))),
        py_limited_api=True,
        extra_compile_args=[
            "-std=c++20",
            "-O3",
            "-fno-math-errno",
            "-fno-trapping-math",
            "-fvisibility=hidden",
            "-g0",
            "-DTORCH_TARGET_VERSION=0x020a000000000000",
            # Errors name their place in the sources, not the folder of the build.
            *(f"-ffile-prefix-map={folder}/=" for folder in (os.getcwd(), *include_paths())),
        ],
    )
    return {"ext_modules": [library], "cmdclass": {"build_ext": Build}}


def build_arguments():
    try:
        return extension()
    except Exception as error:
        if REQUIRE_CPP:
            raise
        print(f"warning: the C++ kernels cannot be built here ({error})", file=sys.stderr)
        return {}


setup(**build_arguments(), options={"bdist_wheel": {"py_limited_api": "cp312"}})
