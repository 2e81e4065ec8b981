"""Counts what a launcher would launch, in Triton's interpreter."""

import torch


class Launches:
    """Counts matrix products and kernels."""

    def __init__(self, monkeypatch, modules, products=("mm", "addmm")):
        self.products, self.kernels = 0, 0
        for name in products:
            monkeypatch.setattr(torch, name, self._counted(getattr(torch, name), "products"))
        for module, name in modules:
            monkeypatch.setattr(module, name, _Grid(self, getattr(module, name)))

    def _counted(self, function, kind):
        def call(*args, **kwargs):
            setattr(self, kind, getattr(self, kind) + 1)
            return function(*args, **kwargs)

        return call


class _Grid:
    def __init__(self, launches, kernel):
        self._launches, self._kernel = launches, kernel

    def __getitem__(self, grid):
        return self._launches._counted(self._kernel[grid], "kernels")
