#include "grouped_plan.h"

#include <atomic>

#include "threads.h"

namespace lamina {

template <class T>
Plan<T>::Plan(const Route<T>& route, int n_experts, int block_rows, int unit_rows)
    : n(route.n), n_rows(route.n * route.top_k), n_places(0), top_k(route.top_k), unit(unit_rows) {
  if (route.expert) {  // counting sort: rows of an expert stay in the order of (token, k)
    offsets.assign(n_experts + 1, 0);
    for (int64_t i = 0; i < n_rows; ++i) ++offsets[route.expert[i] + 1];
    for (int e = 0; e < n_experts; ++e) offsets[e + 1] += offsets[e];
    std::vector<int64_t> next(offsets.begin(), offsets.end() - 1);
    token.resize(n_rows), slot.resize(n_rows), sorted.resize(n_rows);
    for (int64_t i = 0; i < n_rows; ++i) {
      const int64_t r = next[route.expert[i]]++;
      token[r] = static_cast<int32_t>(i / top_k);
      slot[r] = static_cast<int32_t>(i);
      sorted[i] = static_cast<int32_t>(r);
    }
  } else {
    offsets.assign(route.offsets, route.offsets + n_experts + 1);
  }
  if (route.share) {
    share.resize(n_rows);
    for (int64_t i = 0; i < n_rows; ++i) share[sorted_row(i)] = route.share[i];
  }
  block_of.resize(n_rows);
  for (int e = 0; e < n_experts; ++e) {
    first_block.push_back(static_cast<int32_t>(blocks.size()));
    const int64_t rows = offsets[e + 1] - offsets[e];
    const int64_t count = (rows + block_rows - 1) / block_rows;
    for (int64_t i = 0; i < count; ++i) {  // near-equal, and whole units but for the last
      const int64_t units = (rows + unit - 1) / unit;
      const int64_t begin = units * i / count * unit;
      const int64_t end = std::min(rows, units * (i + 1) / count * unit);
      const Block b{e, offsets[e] + begin, n_places, static_cast<int>(end - begin)};
      for (int64_t r = b.row; r < b.row + b.rows; ++r)
        block_of[r] = static_cast<int32_t>(blocks.size());
      n_places += height(b);
      blocks.push_back(b);
    }
  }
  first_block.push_back(static_cast<int32_t>(blocks.size()));
}

Aligned<char> Pool::take(size_t bytes) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& a : spare_)
      if (a.size() >= bytes && a.size() <= 2 * bytes + (size_t{1} << 16)) {
        std::swap(a, spare_.back());
        Aligned<char> found = std::move(spare_.back());
        spare_.pop_back();
        return found;
      }
  }
  return Aligned<char>(bytes);
}
void Pool::give(Aligned<char> area) {
  constexpr size_t kMost = 24;  // a deep pass's buffers; what is older goes
  if (area.size() == 0) return;
  std::lock_guard<std::mutex> lock(mutex_);
  if (spare_.size() == kMost) spare_.erase(spare_.begin());
  spare_.push_back(std::move(area));
}

void each_task(int64_t n_tasks, int n_threads, const Poll& poll,
               const std::function<void(int64_t, int)>& body, void (*enter)(), void (*leave)()) {
  std::atomic<int64_t> next{0};
  Watch watch(poll);
  const int team = static_cast<int>(std::min<int64_t>(n_threads, n_tasks));
  run_team(team, [&](int thread) {
    if (enter) enter();
    for (int64_t task; !watch.stopped() && (task = next.fetch_add(1)) < n_tasks;) {
      body(task, thread);
      if (thread == 0) watch.check();
    }
    if (leave) leave();
  });
  if (watch.stopped()) throw Interrupted();
}

template struct Plan<float>;
template struct Plan<double>;

}  // namespace lamina
