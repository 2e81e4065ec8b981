// Memory that results leave to later calls, since zeroing fresh pages costs more than the kernels' arithmetic.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace deeplift_fast {

// An uninitialised contiguous tensor of the dtype of `like`. Memory of 1 MiB and more uses huge pages, and is kept
// after the tensor is freed, up to 512 MiB in all.
torch::stable::Tensor allocate(const torch::stable::Tensor& like, std::initializer_list<std::int64_t> sizes);

// The same, with the strides of an elementwise function's result.
torch::stable::Tensor allocate_like(const torch::stable::Tensor& like);

// The same, filled with zeros by all threads.
torch::stable::Tensor allocate_zeros(const torch::stable::Tensor& like, std::initializer_list<std::int64_t> sizes);

// Advises the system to use huge pages if memory spans several of them; results do not depend on it.
void use_huge_pages(void* start, std::size_t bytes);

// Whether results take kept memory from now on; returns whether they did before. Without, PyTorch allocates them.
bool keep_memory(bool keep);

// Gives the kept memory back to the system; returns its bytes.
std::size_t release_memory();

}  // namespace deeplift_fast
