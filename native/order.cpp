#include "order.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace lamina {
namespace {

// Up to 4 MiB of row numbers, a swap waits for the second or third cache, beyond for memory: 3 to 5
// ns a row against 20 at 10^7; in buckets 6.
constexpr int64_t kShuffledAtOnce = 1 << 20;
constexpr int64_t kBucket = 1 << 15;  // rows at most, up to 2^25 of them: 128 KiB
// Write streams that the caches and their page tables still follow.
constexpr int64_t kMostBuckets = 1 << 10;

// Fisher-Yates with Lemire's multiply-shift (the bias is below 2^-32 a draw).
void fisher_yates(int32_t* order, int64_t n, uint64_t state) {
  for (uint64_t i = static_cast<uint64_t>(n); i > 1; --i) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;  // xorshift64
    std::swap(order[i - 1], order[((state >> 32) * i) >> 32]);
  }
}

}  // namespace

// Many rows: each draws a bucket, the buckets follow one another, and each is shuffled by itself
// (Rao 1961, Sandelius 1962). All permutations are as likely as under one long Fisher-Yates.
void shuffled(int32_t* order, int64_t n, uint64_t seed, int64_t epoch) {
  const uint64_t key = splitmix(seed ^ splitmix(static_cast<uint64_t>(epoch)));
  if (n <= kShuffledAtOnce) {
    for (int64_t i = 0; i < n; ++i) order[i] = static_cast<int32_t>(i);
    return fisher_yates(order, n, key);
  }
  int64_t buckets = 2;
  while (buckets < kMostBuckets && n > buckets * kBucket) buckets *= 2;
  auto each = [&](auto place) {  // four rows share 64 bits
    for (int64_t i = 0; i < n; i += 4) {
      const uint64_t draw = splitmix(key + static_cast<uint64_t>(i / 4));
      auto one = [&](int k) { place(i + k, draw >> 16 * k & static_cast<uint64_t>(buckets - 1)); };
      one(0);
      if (i + 4 <= n) {
        one(1), one(2), one(3);
      } else {
        for (int k = 1; i + k < n; ++k) one(k);
      }
    }
  };
  std::vector<int64_t> end(static_cast<size_t>(buckets) + 1);
  each([&](int64_t, uint64_t bucket) { ++end[bucket + 1]; });
  for (int64_t k = 0; k < buckets; ++k) end[k + 1] += end[k];  // where each begins
  each([&](int64_t row, uint64_t bucket) { order[end[bucket]++] = static_cast<int32_t>(row); });
  for (int64_t k = 0, begin = 0; k < buckets; begin = end[k++])
    fisher_yates(order + begin, end[k] - begin, splitmix(~key + static_cast<uint64_t>(k)));
}

}  // namespace lamina
