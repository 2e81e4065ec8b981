// GELU at the input, and its secant slope (or derivative), in one pass over memory.
//
// deeplift_fast/ops/naive/gelu.py has the formulas.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <cstdint>
#include <tuple>

#include "activations.h"
#include "allocate.h"
#include "checks.h"
#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::stable::Tensor;
using Index = std::int64_t;

template <typename T>
constexpr T inverse_root_of_tau = static_cast<T>(0.39894228040143267794);  // 1/sqrt(2 pi)

template <typename T>
DLF_INLINE T bell(T a) {  // e^(-a^2/2)
    return exponential(T(-0.5) * a * a).exp;
}

// The normal distribution's cumulative function, given e^(-a^2/2). With z = |a|/sqrt(2) and t = 1/(1 + z/2), erfc(z) is
// e^(-z^2)·t·P(t); P is a minimax fit, right to 4.3e-8 for z up to 10.
DLF_INLINE float cumulative(float a, float bell) {
    constexpr float p[] = {0.2820864174f, 0.2823753178f,  0.2431036906f, 0.202687173f,   -0.02662642339f,
                           0.2780683118f, -0.4872009462f, 0.284575487f,  -0.05906907074f};
    const float t = 1.0f / (1.0f + 0.35355339059327f * std::fabs(a));
    float series = p[8];
    for (int k = 7; k >= 0; --k) series = series * t + p[k];
    const float tail = 0.5f * bell * t * series;
    return a < 0 ? tail : 1.0f - tail;
}
DLF_INLINE double cumulative(double a, double) { return 0.5 * std::erfc(-0.70710678118654752440 * a); }

// Gauss-Legendre nodes and weights for the mean of e^(-t^2/2) over a short interval; half of them, the others mirrored.
template <typename T>
struct Nodes;
template <>
struct Nodes<float> {
    static constexpr float near = 0.5f, middle = 0.44444444444f;
    static constexpr float node[] = {0.77459666924f}, weight[] = {0.27777777778f};
};
template <>
struct Nodes<double> {
    static constexpr double near = 0.25, middle = 0.28444444444444444444;
    static constexpr double node[] = {0.53846931010568309104, 0.90617984593866399280};
    static constexpr double weight[] = {0.23931433524968323402, 0.11846344252809454376};
};

template <typename T>
DLF_INLINE T slope(T a, T b, T at_a, T at_b) {
    using N = Nodes<T>;
    const T delta = a - b, middle = T(0.5) * (a + b), half = T(0.5) * delta;
    T mean = N::middle * bell(middle);
    for (int k = 0; k < static_cast<int>(std::size(N::node)); ++k)
        mean += N::weight[k] * (bell(middle + N::node[k] * half) + bell(middle - N::node[k] * half));
    const T far = (at_a - at_b) / delta, rise = std::fabs(delta) < N::near ? inverse_root_of_tau<T> * mean : far;
    return T(0.5) * (at_a + at_b) + middle * rise;
}

template <typename T>
DLF_INLINE void secants(const T* __restrict x, const T* __restrict x0, T* __restrict y, T* __restrict multiplier,
                        Index size) {
    for (Index i = 0; i < size; ++i) {
        const T a = x[i], b = x0[i], at_a = cumulative(a, bell(a)), at_b = cumulative(b, bell(b));
        y[i] = a * at_a;
        multiplier[i] = slope(a, b, at_a, at_b);
    }
}

template <typename T>
DLF_INLINE void derivatives(const T* __restrict x, T* __restrict y, T* __restrict multiplier, Index size) {
    for (Index i = 0; i < size; ++i) {
        const T a = x[i], density = bell(a), at_a = cumulative(a, density);
        y[i] = a * at_a;
        multiplier[i] = at_a + a * inverse_root_of_tau<T> * density;
    }
}

// Not templates: a function template cannot carry target_clones.
#define DLF_GELU(T)                                                                           \
    DLF_CLONES void row_of(const T* x, const T* x0, T* y, T* multiplier, Index size) {        \
        x0 ? secants<T>(x, x0, y, multiplier, size) : derivatives<T>(x, y, multiplier, size); \
    }
DLF_GELU(float)
DLF_GELU(double)

template <typename T>
void run(const Tensor& x, const Tensor& x0, const Tensor& where, Tensor& y, Tensor& multiplier, bool secant) {
    const Index size = x.size(1);
    const T* in = static_cast<const T*>(x.const_data_ptr());
    const T* in0 = static_cast<const T*>(x0.const_data_ptr());
    const Index* other = integers(where);
    T* out = static_cast<T*>(y.mutable_data_ptr());
    T* slopes = static_cast<T*>(multiplier.mutable_data_ptr());
    torch::stable::parallel_for(0, x.size(0), 16, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i)
            row_of(in + i * size, secant ? in0 + other[i] * size : nullptr, out + i * size, slopes + i * size, size);
    });
}

std::tuple<Tensor, Tensor> gelu(Tensor x, Tensor x0, Tensor where, bool secant) {
    const Checked checked("gelu", "x", x);
    checked.numbers("x", x, {any, any});
    checked.numbers("x0", x0, {any, x.size(1)});
    checked.indices("where", where, {x.size(0)});
    checked.within("where", where, x0.size(0));
    Tensor y = allocate_like(x), multiplier = allocate_like(x);
    (checked.is_float() ? run<float> : run<double>)(x, x0, where, y, multiplier, secant);
    return {y, multiplier};
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) { m.impl("gelu", TORCH_BOX(&deeplift_fast::gelu)); }
