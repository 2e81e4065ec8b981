// Tensors as plain arrays of numbers.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

namespace deeplift_fast {

template <typename T>
const T* read(const torch::stable::Tensor& tensor) {
    return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
T* write(torch::stable::Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
}

// Itself, or a contiguous copy.
inline torch::stable::Tensor dense(const torch::stable::Tensor& tensor) {
    return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Whether numbers are float32; they are float64 otherwise.
inline bool is_float(const torch::stable::Tensor& tensor, const char* op) {
    using torch::headeronly::ScalarType;
    const ScalarType dtype = tensor.scalar_type();
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op,
                    ": accepted dtypes are float32 and float64");
    return dtype == ScalarType::Float;
}

}  // namespace deeplift_fast
