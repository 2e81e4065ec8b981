// Outputs and secant slopes of relu, sigmoid and tanh in one pass over memory.
//
// activations.h has the formulas.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>

#include "activations.h"
#include "allocate.h"
#include "checks.h"

namespace deeplift_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename T>
using Loop = void (*)(const T*, const T*, T*, T*, T*, std::int64_t);

// Not templates: a function template cannot carry target_clones. The second loop leaves y0 out.
#define DLF_LOOP(NAME, T, FUNCTION, EXPRESSION)                                                            \
    DLF_CLONES void NAME(const T* __restrict x, const T* __restrict x0, T* __restrict y, T* __restrict y0, \
                         T* __restrict multiplier, std::int64_t count) {                                   \
        for (std::int64_t i = 0; i < count; ++i) {                                                         \
            const Point<T> a = FUNCTION::at(x[i]), b = FUNCTION::at(x0[i]);                                \
            y[i] = a.y;                                                                                    \
            y0[i] = b.y;                                                                                   \
            multiplier[i] = EXPRESSION;                                                                    \
        }                                                                                                  \
    }                                                                                                      \
    DLF_CLONES void NAME##_at_input(const T* __restrict x, const T* __restrict x0, T* __restrict y, T*,    \
                                    T* __restrict multiplier, std::int64_t count) {                        \
        for (std::int64_t i = 0; i < count; ++i) {                                                         \
            const Point<T> a = FUNCTION::at(x[i]), b = FUNCTION::at(x0[i]);                                \
            y[i] = a.y;                                                                                    \
            multiplier[i] = EXPRESSION;                                                                    \
        }                                                                                                  \
    }

#define DLF_LOOPS(FUNCTION, T)                                             \
    DLF_LOOP(FUNCTION##_rescale_##T, T, FUNCTION, FUNCTION::rescale(a, b)) \
    DLF_LOOP(FUNCTION##_pyhealth_##T, T, FUNCTION, (pyhealth<T, FUNCTION>(a, b)))

DLF_LOOPS(Relu, float)
DLF_LOOPS(Sigmoid, float)
DLF_LOOPS(Tanh, float)
DLF_LOOPS(Relu, double)
DLF_LOOPS(Sigmoid, double)
DLF_LOOPS(Tanh, double)

// The loop that writes to y0, or the one that does not.
#define DLF_PICK(FUNCTION, T)                                                    \
    (rescale ? (y0 ? FUNCTION##_rescale_##T : FUNCTION##_rescale_##T##_at_input) \
             : (y0 ? FUNCTION##_pyhealth_##T : FUNCTION##_pyhealth_##T##_at_input))
#define DLF_LOOP_FOR(T)                                                                                             \
    template <>                                                                                                     \
    Loop<T> loop_for(const std::string& function, bool rescale, bool y0) {                                          \
        if (function == "relu") return DLF_PICK(Relu, T);                                                           \
        if (function == "sigmoid") return DLF_PICK(Sigmoid, T);                                                     \
        STD_TORCH_CHECK(function == "tanh", "secant: function is '", function, "'; accepted: relu, sigmoid, tanh"); \
        return DLF_PICK(Tanh, T);                                                                                   \
    }

template <typename T>
Loop<T> loop_for(const std::string& function, bool rescale, bool y0);
DLF_LOOP_FOR(float)
DLF_LOOP_FOR(double)

// A half type goes through float buffers that stay in the first-level cache.
template <typename Half>
void through_float(Loop<float> loop, const Half* x, const Half* x0, Half* y, Half* y0, Half* multiplier,
                   std::int64_t count) {
    constexpr std::int64_t block = 256;
    float in[2][block], out[3][block];
    for (std::int64_t start = 0; start < count; start += block) {
        const std::int64_t length = std::min(block, count - start);
        for (std::int64_t i = 0; i < length; ++i) {
            in[0][i] = static_cast<float>(x[start + i]);
            in[1][i] = static_cast<float>(x0[start + i]);
        }
        loop(in[0], in[1], out[0], out[1], out[2], length);
        for (std::int64_t i = 0; i < length; ++i) {
            y[start + i] = static_cast<Half>(out[0][i]);
            if (y0) y0[start + i] = static_cast<Half>(out[1][i]);
            multiplier[start + i] = static_cast<Half>(out[2][i]);
        }
    }
}

template <typename T, typename Compute>
void launch(const Tensor& x, const Tensor& x0, Tensor& y, Tensor* y0, Tensor& multiplier, const std::string& function,
            bool rescale) {
    const Loop<Compute> loop = loop_for<Compute>(function, rescale, y0 != nullptr);
    const T* in = static_cast<const T*>(x.const_data_ptr());
    const T* in0 = static_cast<const T*>(x0.const_data_ptr());
    T* out = static_cast<T*>(y.mutable_data_ptr());
    T* out0 = y0 ? static_cast<T*>(y0->mutable_data_ptr()) : nullptr;
    T* slope = static_cast<T*>(multiplier.mutable_data_ptr());
    constexpr std::int64_t grain = 16384;
    torch::stable::parallel_for(0, x.numel(), grain, [&](std::int64_t begin, std::int64_t end) {
        if constexpr (std::is_same_v<T, Compute>)
            loop(in + begin, in0 + begin, out + begin, out0 ? out0 + begin : nullptr, slope + begin, end - begin);
        else
            through_float(loop, in + begin, in0 + begin, out + begin, out0 ? out0 + begin : nullptr, slope + begin,
                          end - begin);
    });
}

bool same(torch::headeronly::IntHeaderOnlyArrayRef a, torch::headeronly::IntHeaderOnlyArrayRef b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

// `tensor` laid out as `layout`, whose strides are dense.
Tensor laid_out_as(const Tensor& layout, const Tensor& tensor) {
    if (same(tensor.strides(), layout.strides())) return tensor;
    Tensor dense = torch::stable::empty_like(layout);
    return torch::stable::copy_(dense, tensor);
}

// Writes y, the multiplier, and y0 unless it is null.
void run(const Tensor& x, const Tensor& x0, const std::string& function, const std::string& variant, Tensor& y,
         Tensor* y0, Tensor& multiplier) {
    STD_TORCH_CHECK(same(x.sizes(), x0.sizes()), "secant: x and x0 differ in shape");
    STD_TORCH_CHECK(x.scalar_type() == x0.scalar_type(), "secant: x and x0 differ in dtype");
    require_memory("secant", "x0", x0);
    STD_TORCH_CHECK(variant == "rescale" || variant == "pyhealth", "secant: variant is '", variant,
                    "'; accepted: rescale, pyhealth");
    const Tensor input = laid_out_as(y, x), baseline = laid_out_as(y, x0);
    const bool rescale = variant == "rescale";
    switch (x.scalar_type()) {
        case ScalarType::Float:
            launch<float, float>(input, baseline, y, y0, multiplier, function, rescale);
            break;
        case ScalarType::Double:
            launch<double, double>(input, baseline, y, y0, multiplier, function, rescale);
            break;
        case ScalarType::Half:
            launch<torch::headeronly::Half, float>(input, baseline, y, y0, multiplier, function, rescale);
            break;
        case ScalarType::BFloat16:
            launch<torch::headeronly::BFloat16, float>(input, baseline, y, y0, multiplier, function, rescale);
            break;
        default:
            STD_TORCH_CHECK(false, "secant: accepted dtypes are float32, float64, float16 and bfloat16");
    }
}

std::tuple<Tensor, Tensor, Tensor> secant(Tensor x, Tensor x0, std::string function, std::string variant) {
    require_memory("secant", "x", x);
    Tensor y = allocate_like(x), y0 = allocate_like(x), multiplier = allocate_like(x);
    run(x, x0, function, variant, y, &y0, multiplier);
    return {y, y0, multiplier};
}

std::tuple<Tensor, Tensor> secant_at_input(Tensor x, Tensor x0, std::string function, std::string variant) {
    require_memory("secant_at_input", "x", x);
    Tensor y = allocate_like(x), multiplier = allocate_like(x);
    run(x, x0, function, variant, y, nullptr, multiplier);
    return {y, multiplier};
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) {
    m.impl("secant", TORCH_BOX(&deeplift_fast::secant));
    m.impl("secant_at_input", TORCH_BOX(&deeplift_fast::secant_at_input));
}
