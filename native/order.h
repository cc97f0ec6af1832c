// The order in which an epoch visits the rows, and fetching them ahead of their turn.
#pragma once
#include <cstdint>

#include "layout.h"

namespace lamina {

// The finaliser of splitmix64 (Vigna 2015): a counter to 64 bits that look random.
inline uint64_t splitmix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// A permutation of 0..n-1, a function of (n, seed, epoch) alone.
void shuffled(int32_t* order, int64_t n, uint64_t seed, int64_t epoch);

// What part of a second-level cache the rows of a part's next batch may take.
inline constexpr ptrdiff_t kFetchedBytes = 64 << 10;

// The rows of a part's next batch, fetched into the second-level cache while this batch is
// computed: rows in random order cost a wait for memory each. A portion between any two kernels,
// as a core has some 10 to 24 requests under way and then stands still.
template <class T>
class NextRows {
 public:
  NextRows(const Layout<T>& a, const Rows<T>& rows, int repeat, const int32_t* index, int count)
      : rows_(rows), index_(index), left_(count), d_in_(a.d_in), d_y_(a.dims.back() / repeat) {
    const ptrdiff_t bytes = (d_in_ + (rows.classes ? 1 : d_y_)) * static_cast<ptrdiff_t>(sizeof(T));
    if (bytes * count > kFetchedBytes) left_ = 0;  // gather() fetches, a few rows ahead
  }
  void fetch(int portions_left) {
    const int count = (left_ + portions_left - 1) / portions_left;
    for (const int32_t* end = index_ + count; index_ != end; ++index_) {
      const auto row = static_cast<ptrdiff_t>(*index_);
      lines(rows_.x + row * d_in_, d_in_);
      if (rows_.classes)
        lines(rows_.classes + row, 1);
      else
        lines(rows_.values + row * d_y_, d_y_);
      if (rows_.row_weight) lines(rows_.row_weight + row, 1);
    }
    left_ -= count;
  }

 private:
  template <class E>
  static void lines(const E* from, ptrdiff_t count) {
    const auto first = reinterpret_cast<uintptr_t>(from) & ~uintptr_t{63};
    const auto end = reinterpret_cast<uintptr_t>(from + count);
    for (uintptr_t line = first; line < end; line += 64)
      __builtin_prefetch(reinterpret_cast<const void*>(line), 0, 2);
  }
  const Rows<T>& rows_;
  const int32_t* index_;
  int left_;
  ptrdiff_t d_in_, d_y_;
};

}  // namespace lamina
