// The checksum of memory, at the speed of reading it. Each lane mixes its words one after the other, see mixed().
#include "checksum.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "elementwise.h"

namespace deeplift_fast {
namespace {

constexpr std::size_t lanes = 128;            // several vectors, since a product takes many cycles
constexpr std::size_t ahead = 8192;           // bytes from the words in use to those that are fetched
constexpr std::size_t chunk = 1 << 18;        // bytes for one thread
constexpr std::uint32_t factor = 0x9E3779B1;  // odd: no word's share ever vanishes
constexpr int shift = 15;                     // brings high bits down, which a product only moves up
constexpr std::uint64_t wide_factor = 0x9E3779B97F4A7C15;
constexpr std::size_t block = lanes * sizeof(std::uint32_t);

// A lane after one more word. Each word of 2^32 leads to a state of its own, and so does each state before. A product
// alone would lose changes of the highest bits of two words, such as two signs.
inline std::uint32_t mixed(std::uint32_t state, std::uint32_t word) {
    const std::uint32_t product = (state ^ word) * factor;
    return product ^ (product >> shift);
}

std::uint64_t mixed_wide(std::uint64_t state, std::uint64_t word) {
    const std::uint64_t product = (state ^ word) * wide_factor;
    return product ^ (product >> 2 * shift);
}

DLF_CLONES void add_blocks(const unsigned char* from, std::size_t blocks, std::uint32_t* sums) {
    std::uint32_t local[lanes];
    std::memcpy(local, sums, sizeof(local));
    for (std::size_t at = 0; at < blocks; ++at) {
        for (std::size_t line = 0; line < block; line += 64) __builtin_prefetch(from + at * block + ahead + line);
        std::uint32_t words[lanes];
        std::memcpy(words, from + at * block, block);
        for (std::size_t lane = 0; lane < lanes; ++lane) local[lane] = mixed(local[lane], words[lane]);
    }
    std::memcpy(sums, local, sizeof(local));
}

std::uint64_t of_chunk(const unsigned char* from, std::size_t bytes) {
    std::uint32_t sums[lanes] = {};
    const std::size_t blocks = bytes / block, done = blocks * block;
    add_blocks(from, blocks, sums);
    if (bytes > done) {
        unsigned char last[block] = {};
        std::memcpy(last, from + done, bytes - done);
        add_blocks(last, 1, sums);
    }
    std::uint64_t found = bytes;
    for (const std::uint32_t sum : sums) found = mixed_wide(found, sum);
    return found;
}

}  // namespace

std::uint64_t checksum(const void* start, std::size_t bytes) {
    const auto* from = static_cast<const unsigned char*>(start);
    std::vector<std::uint64_t> parts((bytes + chunk - 1) / chunk);
    torch::stable::parallel_for(
        0, static_cast<std::int64_t>(parts.size()), 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::size_t part = begin; part < static_cast<std::size_t>(end); ++part) {
                parts[part] = of_chunk(from + part * chunk, std::min(chunk, bytes - part * chunk));
            }
        });
    std::uint64_t found = bytes;
    for (const std::uint64_t part : parts) found = mixed_wide(found, part);
    return found;
}

}  // namespace deeplift_fast
