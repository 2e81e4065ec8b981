// A number that tells whether memory has changed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deeplift_fast {

// Depends on every bit and on its place: a change of one 4-byte word always changes the result, other changes of
// memory do with a probability of about 1 - 2^-32.
std::uint64_t checksum(const void* start, std::size_t bytes);

}  // namespace deeplift_fast
