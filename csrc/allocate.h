// Memory for results that calls hand on to one another: zeroing fresh pages costs more than the kernels' arithmetic.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace deeplift_fast {

// A contiguous tensor of the dtype of `like`, of whatever content. From 1 MiB on its memory is kept when it is gone,
// up to 512 MiB in all, and asked for in huge pages.
torch::stable::Tensor allocate(const torch::stable::Tensor& like, std::initializer_list<std::int64_t> sizes);

// The same with the layout that an elementwise function's result has.
torch::stable::Tensor allocate_like(const torch::stable::Tensor& like);

// Filled with zeros, by all threads.
torch::stable::Tensor allocate_zeros(const torch::stable::Tensor& like, std::initializer_list<std::int64_t> sizes);

// Advises the system where memory spans several huge pages. Advice only: results are the same.
void use_huge_pages(void* start, std::size_t bytes);

// Gives what is kept back to the system; returns its bytes.
std::size_t release_memory();

}  // namespace deeplift_fast
