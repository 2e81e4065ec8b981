// Checks that protect memory: a kernel names the shape of every tensor that it reads, and checks every index. All other
// checks of arguments are in Python; raw calls of torch.ops skip them.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>

namespace deeplift_fast {

constexpr std::int64_t any = -1;  // a size that may be any number

inline const std::int64_t* integers(const torch::stable::Tensor& tensor) {
    return static_cast<const std::int64_t*>(tensor.const_data_ptr());
}

// Raises unless a tensor is on the CPU and all of it is in its storage, which may have been freed.
void require_memory(const char* op, const char* name, const torch::stable::Tensor& tensor);

// The arguments of one op. All numbers have the dtype of one argument, float32 or float64.
class Checked {
  public:
    // With `strided`, tensors need not be contiguous.
    Checked(const char* op, const char* name, const torch::stable::Tensor& numbers, bool strided = false);

    bool is_float() const { return dtype_ == torch::headeronly::ScalarType::Float; }

    void require(const char* name, const torch::stable::Tensor& tensor, torch::headeronly::ScalarType dtype,
                 std::initializer_list<std::int64_t> sizes) const;
    void numbers(const char* name, const torch::stable::Tensor& tensor,
                 std::initializer_list<std::int64_t> sizes) const {
        require(name, tensor, dtype_, sizes);
    }
    void indices(const char* name, const torch::stable::Tensor& tensor,
                 std::initializer_list<std::int64_t> sizes) const {
        require(name, tensor, torch::headeronly::ScalarType::Long, sizes);
    }
    void flags(const char* name, const torch::stable::Tensor& tensor, std::initializer_list<std::int64_t> sizes) const {
        require(name, tensor, torch::headeronly::ScalarType::Bool, sizes);
    }

    // Raises unless every number of a dense index is within 0 to size - 1, or `counts` marks it as unused.
    void within(const char* name, const torch::stable::Tensor& index, std::int64_t size,
                const bool* counts = nullptr) const;

    // Raises unless the starts of ragged parts, with the end, are a dense index that rises from 0 to `total`.
    void ends(const char* name, const torch::stable::Tensor& ends, std::int64_t total) const;

  private:
    const char* op_;
    torch::headeronly::ScalarType dtype_;
    bool strided_;
};

}  // namespace deeplift_fast
