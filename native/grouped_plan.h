// Who goes where in a grouped product, and the memory its passes borrow.
#pragma once
#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "grouped.h"
#include "layout.h"

namespace lamina {

// Rows of one expert that travel together. Matrices of n sorted rows lie block by block, and within
// a block as [panel][row][kPanel]: contiguous, whatever the other experts got.
struct Block {
  int expert;
  int64_t row;    // sorted row of its first
  int64_t place;  // the same with every block before it rounded up to its unit of rows
  int rows;
};

template <class T>
struct Plan {
  int64_t n, n_rows;  // rows of x; rows that experts see, n * top_k
  int64_t n_places;   // rows of a buffer
  int top_k;
  int unit;                      // rows a block is rounded up to
  std::vector<int64_t> offsets;  // (n_experts + 1,)
  std::vector<int32_t> token;    // sorted row -> row of x; empty: they are the same
  std::vector<int32_t> slot;     // sorted row -> (row of x, k)
  std::vector<int32_t> sorted;   // its inverse
  std::vector<T> share;          // of a sorted row; empty: one
  std::vector<Block> blocks;
  std::vector<int32_t> block_of;     // sorted row -> block
  std::vector<int32_t> first_block;  // expert -> its first block, (n_experts + 1,)

  Plan(const Route<T>& route, int n_experts, int block_rows, int unit);
  int height(const Block& b) const { return (b.rows + unit - 1) / unit * unit; }
  bool idle(int expert) const { return first_block[expert] == first_block[expert + 1]; }
  int tallest() const {
    int rows = 0;
    for (const Block& b : blocks) rows = std::max(rows, b.rows);
    return rows;
  }
  int64_t sorted_row(int64_t slot_index) const {
    return sorted.empty() ? slot_index : sorted[slot_index];
  }
};

// Work areas lent out again and again: fresh ones would cost a page fault every 4 KiB.
class Pool {
 public:
  Aligned<char> take(size_t bytes);
  void give(Aligned<char> area);

 private:
  std::mutex mutex_;
  std::vector<Aligned<char>> spare_;
};
template <class E>
class Loan {
 public:
  Loan() = default;
  Loan(std::shared_ptr<Pool> pool, size_t n)
      : pool_(std::move(pool)), area_(pool_->take(n * sizeof(E))) {}
  Loan(Loan&&) noexcept = default;
  Loan& operator=(Loan&& o) noexcept {
    std::swap(pool_, o.pool_);
    std::swap(area_, o.area_);
    return *this;
  }
  ~Loan() {
    if (pool_) pool_->give(std::move(area_));
  }
  E* data() { return reinterpret_cast<E*>(area_.data()); }
  const E* data() const { return reinterpret_cast<const E*>(area_.data()); }

 private:
  std::shared_ptr<Pool> pool_;
  Aligned<char> area_;
};

// body(task, thread) once for each task, claimed in order, between enter and leave of each thread;
// throws Interrupted when poll says so.
void each_task(int64_t n_tasks, int n_threads, const Poll& poll,
               const std::function<void(int64_t task, int thread)>& body, void (*enter)() = nullptr,
               void (*leave)() = nullptr);

}  // namespace lamina
