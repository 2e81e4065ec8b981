// What only the numbers themselves can tell of an op's arguments; shapes and dtypes are checked in Python.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

namespace deeplift_fast {

inline const std::int64_t* integers(const torch::stable::Tensor& tensor) {
    return static_cast<const std::int64_t*>(tensor.const_data_ptr());
}

inline void require_within(const char* what, const torch::stable::Tensor& index, std::int64_t size) {
    const std::int64_t *numbers = integers(index), count = index.numel();
    bool inside = true;
    for (std::int64_t i = 0; i < count; ++i) inside &= numbers[i] >= 0 && numbers[i] < size;
    STD_TORCH_CHECK(inside, what, " holds numbers outside 0 to ", size - 1);
}

// Where ragged parts begin, and the end.
inline void require_ends(const char* what, const torch::stable::Tensor& ends, std::int64_t total) {
    const std::int64_t* numbers = integers(ends);
    const std::int64_t count = ends.numel();
    bool rising = count > 0 && numbers[0] == 0 && numbers[count - 1] == total;
    for (std::int64_t i = 1; i < count; ++i) rising &= numbers[i] >= numbers[i - 1];
    STD_TORCH_CHECK(rising, what, " must rise from 0 to ", total);
}

}  // namespace deeplift_fast
