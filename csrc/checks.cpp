#include "checks.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <sstream>
#include <string>

#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Index = std::int64_t;

std::string name_of(ScalarType dtype) {
    switch (dtype) {
        case ScalarType::Float:
            return "float32";
        case ScalarType::Double:
            return "float64";
        case ScalarType::Long:
            return "int64";
        case ScalarType::Bool:
            return "bool";
        default:
            return torch::headeronly::toString(dtype);
    }
}

template <typename Sizes>
std::string shown(const Sizes& sizes) {
    std::ostringstream text;
    text << "[";
    for (const Index size : sizes) {
        if (text.tellp() > 1) text << ", ";
        size == any ? text << "any" : text << size;
    }
    text << "]";
    return text.str();
}

bool fits(const Tensor& tensor, std::initializer_list<Index> sizes) {
    const auto found = tensor.sizes();
    if (found.size() != sizes.size()) return false;
    const Index* own = found.data();
    for (const Index size : sizes) {
        if (size != any && size != *own) return false;
        ++own;
    }
    return true;
}

}  // namespace

void require_memory(const char* op, const char* name, const Tensor& tensor) {
    STD_TORCH_CHECK(tensor.is_cpu(), op, ": ", name, " is not on the CPU; move it to where the others are");
    if (tensor.numel() == 0) return;
    Index bytes = 0, last = 0;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(tensor.get(), &last));
    const auto sizes = tensor.sizes(), strides = tensor.strides();
    for (std::size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides[i];
    STD_TORCH_CHECK((last + 1) * static_cast<Index>(tensor.element_size()) <= bytes, op, ": ", name,
                    " has no memory: its storage was freed or made smaller");
}

Checked::Checked(const char* op, const char* name, const Tensor& numbers, bool strided)
    : op_(op), dtype_(numbers.scalar_type()), strided_(strided) {
    STD_TORCH_CHECK(dtype_ == ScalarType::Float || dtype_ == ScalarType::Double, op, ": ", name, " is ",
                    name_of(dtype_), "; accepted: float32 and float64");
}

void Checked::require(const char* name, const Tensor& tensor, ScalarType dtype,
                      std::initializer_list<Index> sizes) const {
    STD_TORCH_CHECK(tensor.scalar_type() == dtype && fits(tensor, sizes), op_, ": ", name, " is ",
                    name_of(tensor.scalar_type()), " of shape ", shown(tensor.sizes()), "; accepted: ", name_of(dtype),
                    " of shape ", shown(sizes));
    STD_TORCH_CHECK(strided_ || tensor.is_contiguous(), op_, ": ", name, " is not contiguous; pass ", name,
                    ".contiguous()");
    require_memory(op_, name, tensor);
}

void Checked::within(const char* name, const Tensor& index, Index size, const bool* counts) const {
    const Index *numbers = integers(index), count = index.numel();
    bool inside = true;
    if (counts == nullptr)
        for (Index i = 0; i < count; ++i) inside &= numbers[i] >= 0 && numbers[i] < size;
    else
        for (Index i = 0; i < count; ++i) inside &= !counts[i] || (numbers[i] >= 0 && numbers[i] < size);
    STD_TORCH_CHECK(inside, op_, ": ", name, " holds numbers outside 0 to ", size - 1);
}

void Checked::ends(const char* name, const Tensor& ends, Index total) const {
    const Index *numbers = integers(ends), count = ends.numel();
    bool rising = count > 0 && numbers[0] == 0 && numbers[count - 1] == total;
    for (Index i = 1; i < count; ++i) rising &= numbers[i] >= numbers[i - 1];
    STD_TORCH_CHECK(rising, op_, ": ", name, " must rise from 0 to ", total);
}

}  // namespace deeplift_fast
