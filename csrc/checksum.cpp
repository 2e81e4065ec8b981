// The checksum of memory, at the speed of reading it. Each lane is a polynomial of its words, modulo 2^32.
#include "checksum.h"

#include <cstring>

#include "elementwise.h"

namespace deeplift_fast {
namespace {

constexpr std::size_t lanes = 128;            // several vectors, since a product takes many cycles
constexpr std::size_t ahead = 8192;           // bytes from the words in use to those that are fetched
constexpr std::uint32_t factor = 0x9E3779B1;  // odd: no word's share ever vanishes
constexpr std::size_t block = lanes * sizeof(std::uint32_t);

DLF_CLONES void add_blocks(const unsigned char* from, std::size_t blocks, std::uint32_t* sums) {
    std::uint32_t local[lanes];
    std::memcpy(local, sums, sizeof(local));
    for (std::size_t at = 0; at < blocks; ++at) {
        for (std::size_t line = 0; line < block; line += 64) __builtin_prefetch(from + at * block + ahead + line);
        std::uint32_t words[lanes];
        std::memcpy(words, from + at * block, block);
        for (std::size_t lane = 0; lane < lanes; ++lane) local[lane] = local[lane] * factor + words[lane];
    }
    std::memcpy(sums, local, sizeof(local));
}

}  // namespace

std::uint64_t checksum(const void* start, std::size_t bytes) {
    const auto* from = static_cast<const unsigned char*>(start);
    std::uint32_t sums[lanes] = {};
    const std::size_t blocks = bytes / block, done = blocks * block;
    add_blocks(from, blocks, sums);
    if (bytes > done) {
        unsigned char last[block] = {};
        std::memcpy(last, from + done, bytes - done);
        add_blocks(last, 1, sums);
    }
    std::uint64_t found = bytes;
    for (const std::uint32_t sum : sums) found = found * 0x9E3779B97F4A7C15 + sum;
    return found;
}

}  // namespace deeplift_fast
