// Summation to delta of a batch: the convergence delta, the factor that hides it, and the sums for the report.
//
// deeplift_fast/ops/naive/convergence.py has the formulas.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>

#include "checks.h"
#include "tensors.h"

namespace deeplift_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Index = std::int64_t;

constexpr double smallest_sum = 1e-8, largest_factor = 10;

struct Results {
    Tensor delta, factor, fine, figures;
};

template <typename T>
void run(const Tensor& totals, const Tensor& output, const Tensor& output0, bool rescale, double tolerance,
         Results& to) {
    const Index features = totals.size(0), batch = totals.size(1);
    const double* sums = read<double>(totals);
    const T *at_input = read<T>(output), *at_baseline = read<T>(output0);
    T *delta = write<T>(to.delta), *factor = write<T>(to.factor);
    bool* fine = write<bool>(to.fine);
    const double unit = 1e3 * static_cast<double>(std::numeric_limits<T>::epsilon());
    double missing = 0, change = 0, suspect = 0;
    for (Index i = 0; i < batch; ++i) {
        const T a = at_input[i], b = at_baseline[i], size = std::abs(a - b);
        const double difference = static_cast<double>(a) - static_cast<double>(b);
        double total = sums[i];
        for (Index feature = 1; feature < features; ++feature) total += sums[feature * batch + i];
        delta[i] = static_cast<T>(total - difference);
        if (rescale) {
            const bool usable = std::abs(total) > smallest_sum;
            const double by = usable ? difference / total : 1;
            factor[i] = static_cast<T>(by);
            fine[i] = usable && by >= 0 && by <= largest_factor;
        } else {
            const T rounding = static_cast<T>(unit) * std::max({std::abs(a), std::abs(b), T(1)});
            fine[i] = std::abs(delta[i]) <= std::max(static_cast<T>(tolerance) * size, rounding);  // NaN is not
        }
        missing += static_cast<double>(delta[i]);
        change += static_cast<double>(1 + size);
        suspect += !fine[i];
    }
    double* figures = write<double>(to.figures);
    figures[0] = missing, figures[1] = unit * change, figures[2] = suspect;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> convergence(Tensor totals, Tensor output, Tensor output0, bool rescale,
                                                       double tolerance) {
    const Checked checked("convergence", "output", output, /*strided=*/true);
    checked.numbers("output", output, {any});
    const Index batch = output.size(0);
    checked.numbers("output0", output0, {batch});
    checked.require("totals", totals, ScalarType::Double, {any, batch});
    STD_TORCH_CHECK(totals.size(0) > 0, "convergence: totals has no row; accepted: one for each feature, 1 or more");
    for (Tensor* each : {&totals, &output, &output0}) *each = dense(*each);
    Results to{torch::stable::new_empty(output, {batch}), torch::stable::new_empty(output, {rescale ? batch : 0}),
               torch::stable::new_empty(output, {batch}, ScalarType::Bool), torch::stable::new_empty(totals, {1, 3})};
    (checked.is_float() ? run<float> : run<double>)(totals, output, output0, rescale, tolerance, to);
    return {to.delta, to.factor, to.fine, to.figures};
}

}  // namespace
}  // namespace deeplift_fast

STABLE_TORCH_LIBRARY_IMPL(deeplift_fast, CPU, m) { m.impl("convergence", TORCH_BOX(&deeplift_fast::convergence)); }
