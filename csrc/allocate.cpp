#include "allocate.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "tensors.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(__GNUC__)
// Null before torch 2.11; results then take fresh memory.
extern "C" __attribute__((weak)) AOTITorchError torch_from_blob(void*, std::int64_t, const std::int64_t*,
                                                                const std::int64_t*, std::int64_t, std::int32_t,
                                                                std::int32_t, std::int32_t, AtenTensorHandle*,
                                                                std::int32_t, const std::uint8_t*, std::int64_t,
                                                                void (*)(void*, void*), void*);
#else
constexpr decltype(nullptr) torch_from_blob = nullptr;
#endif

namespace deeplift_fast {
namespace {

using torch::headeronly::IntHeaderOnlyArrayRef;
using torch::stable::Tensor;

constexpr std::size_t huge_page = std::size_t(1) << 21, smallest = std::size_t(1) << 20;
constexpr std::size_t most_kept = std::size_t(1) << 29;

struct Buffer {
    void* start;
    std::size_t bytes;
};

// Unused buffers, the oldest first.
class Pool {
  public:
    // Has no start if memory is exhausted.
    Buffer take(std::size_t bytes) {
        {
            const std::lock_guard lock(mutex_);
            auto best = free_.end();
            for (auto each = free_.begin(); each != free_.end(); ++each)
                if (each->bytes >= bytes && each->bytes <= 2 * bytes &&
                    (best == free_.end() || each->bytes <= best->bytes))
                    best = each;
            if (best != free_.end()) {
                const Buffer found = *best;
                free_.erase(best);
                kept_ -= found.bytes;
                return found;
            }
        }
        // An eighth more than needed, so that batches of nearly the same size share it; untouched pages take no memory.
        const std::size_t size = (bytes + bytes / 8 + huge_page - 1) / huge_page * huge_page;
        void* start = nullptr;
        if (posix_memalign(&start, huge_page, size) != 0) {
            release();
            if (posix_memalign(&start, huge_page, size) != 0) return {nullptr, 0};
        }
        use_huge_pages(start, size);
        return {start, size};
    }

    void give(Buffer buffer) {
        std::vector<Buffer> dropped;
        {
            const std::lock_guard lock(mutex_);
            free_.push_back(buffer);
            kept_ += buffer.bytes;
            while (kept_ > most_kept) {
                kept_ -= free_.front().bytes;
                dropped.push_back(free_.front());
                free_.erase(free_.begin());
            }
        }
        for (const Buffer& each : dropped) std::free(each.start);
    }

    std::size_t release() {
        std::vector<Buffer> dropped;
        {
            const std::lock_guard lock(mutex_);
            dropped.swap(free_);
            kept_ = 0;
        }
        std::size_t bytes = 0;
        for (const Buffer& each : dropped) {
            std::free(each.start);
            bytes += each.bytes;
        }
        return bytes;
    }

  private:
    std::mutex mutex_;
    std::vector<Buffer> free_;
    std::size_t kept_ = 0;
};

// Never destroyed: tensors may outlive the library's static objects.
Pool& pool() {
    static Pool* const found = new Pool;
    return *found;
}

std::atomic<bool> keeps{true};

bool is_kept(std::size_t bytes) { return keeps && bytes >= smallest && torch_from_blob != nullptr; }

Tensor pooled(const Tensor& like, std::size_t bytes, IntHeaderOnlyArrayRef sizes, IntHeaderOnlyArrayRef strides) {
    const Buffer taken = pool().take(bytes);
    if (taken.start == nullptr) return torch::stable::new_empty(like, sizes);  // reports the lack of memory
    namespace stable = torch::stable::detail;
    const auto device = like.device();
    Buffer* buffer = new Buffer(taken);
    const auto give_back = [](void*, void* from) {
        const std::unique_ptr<Buffer> owned(static_cast<Buffer*>(from));
        pool().give(*owned);
    };
    AtenTensorHandle result;
    STABLE_TORCH_ERROR_CODE_CHECK(torch_from_blob(
        buffer->start, static_cast<std::int64_t>(sizes.size()), sizes.data(), strides.data(), 0,
        stable::to<std::int32_t>(stable::from(like.scalar_type())),
        stable::to<std::int32_t>(stable::from(device.type())), device.index(), &result,
        stable::to<std::int32_t>(stable::from(torch::headeronly::Layout::Strided)), nullptr, 0, give_back, buffer));
    return Tensor(result);
}

}  // namespace

void use_huge_pages(void* start, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const auto begin = reinterpret_cast<std::uintptr_t>(start);
    const std::uintptr_t first = (begin + huge_page - 1) & ~(huge_page - 1);
    const std::uintptr_t last = (begin + bytes) & ~(huge_page - 1);
    if (last >= first + 2 * huge_page) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

Tensor allocate(const Tensor& like, std::initializer_list<std::int64_t> sizes) {
    const IntHeaderOnlyArrayRef shape(sizes.begin(), sizes.size());
    std::int64_t bytes = like.element_size();
    bool possible = true;
    for (const std::int64_t size : sizes) possible &= size >= 0 && !__builtin_mul_overflow(bytes, size, &bytes);
    if (!possible || !is_kept(bytes)) return torch::stable::new_empty(like, shape);
    std::vector<std::int64_t> strides(sizes.size(), 1);
    for (std::size_t i = sizes.size() - 1; i-- > 0;) strides[i] = strides[i + 1] * shape[i + 1];
    return pooled(like, bytes, shape, IntHeaderOnlyArrayRef(strides.data(), strides.size()));
}

Tensor allocate_like(const Tensor& like) {
    const std::size_t bytes = like.numel() * like.element_size();
    if (!is_kept(bytes) || !like.is_contiguous()) return torch::stable::empty_like(like);
    return pooled(like, bytes, like.sizes(), like.strides());
}

Tensor allocate_zeros(const Tensor& like, std::initializer_list<std::int64_t> sizes) {
    Tensor result = allocate(like, sizes);
    char* bytes = static_cast<char*>(result.mutable_data_ptr());
    torch::stable::parallel_for(
        0, result.numel() * static_cast<std::int64_t>(result.element_size()), 1 << 19,
        [&](std::int64_t begin, std::int64_t end) { std::memset(bytes + begin, 0, end - begin); });
    return result;
}

bool keep_memory(bool keep) { return keeps.exchange(keep); }

std::size_t release_memory() { return pool().release(); }

}  // namespace deeplift_fast
