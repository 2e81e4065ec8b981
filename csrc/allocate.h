// Results whose memory is asked for in huge pages: at 4 KiB, page faults cost more than the arithmetic.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace deeplift_fast {

// Advises the kernel where a tensor's memory spans several huge pages. Advice only: a kernel without transparent huge
// pages ignores it, and results are the same.
inline void use_huge_pages(torch::stable::Tensor& tensor) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr std::uintptr_t page = std::uintptr_t(1) << 21;
    const auto start = reinterpret_cast<std::uintptr_t>(tensor.data_ptr());
    const std::uintptr_t first = (start + page - 1) & ~(page - 1);
    const std::uintptr_t last = (start + tensor.numel() * tensor.element_size()) & ~(page - 1);
    if (last >= first + 2 * page) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

inline torch::stable::Tensor allocate_like(const torch::stable::Tensor& like) {
    torch::stable::Tensor result = torch::stable::empty_like(like);
    use_huge_pages(result);
    return result;
}

}  // namespace deeplift_fast
