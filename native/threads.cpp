#include "threads.h"

#include <pthread.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace lamina {
namespace {

inline void pause_cpu() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// About 40 us of spinning: longer than a small step's imbalance, far shorter than a scheduler's
// time slice.
constexpr int kSpins = 1000;

struct Pool {
  std::mutex owner;  // held by the caller whose job is running
  std::mutex mutex;
  std::condition_variable wake;
  int workers = 0;
  const std::function<void(int, Team&)>* body = nullptr;
  Team* team = nullptr;
  std::atomic<uint64_t> job{0};
  std::atomic<int> running{0};

  // As many workers as the system grants; they live as long as the process.
  int grow(int count) {
    try {
      for (; workers < count; ++workers)
        std::thread([this, index = workers + 1, seen = job.load()] { work(index, seen); }).detach();
    } catch (const std::system_error&) {
    }
    return workers < count ? workers : count;
  }

  void work(int index, uint64_t seen) {
    FlushDenormals flush;
    for (;;) {
      for (int i = 0; i < kSpins && job.load(std::memory_order_acquire) == seen; ++i) pause_cpu();
      if (job.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return job.load(std::memory_order_acquire) != seen; });
      }
      Team* crew;
      int members;
      const std::function<void(int, Team&)>* task;
      {
        // A worker outside the team may wake late, while the next job is being set up: read both
        // under the lock.
        std::lock_guard<std::mutex> lock(mutex);
        seen = job.load(std::memory_order_relaxed);
        crew = team;
        members = crew ? crew->members : 0;
        task = body;
      }
      if (index < members) {
        (*task)(index, *crew);
        running.fetch_sub(1, std::memory_order_acq_rel);
        running.notify_one();
      }
    }
  }

  void run(int wanted, const std::function<void(int, Team&)>& task) {
    Team crew(grow(wanted - 1) + 1);
    {
      std::lock_guard<std::mutex> lock(mutex);
      body = &task;
      team = &crew;
      running.store(crew.members - 1, std::memory_order_relaxed);
      job.fetch_add(1, std::memory_order_release);
    }
    wake.notify_all();
    task(0, crew);
    for (int i = 0; i < kSpins && running.load(std::memory_order_acquire) != 0; ++i) pause_cpu();
    for (int left; (left = running.load(std::memory_order_acquire)) != 0;) running.wait(left);
    std::lock_guard<std::mutex> lock(mutex);
    team = nullptr;  // a worker that wakes late finds no team to join
  }
};

// Never destroyed: detached workers may outlive static destruction. Replaced, not repaired, in a
// forked child.
std::atomic<Pool*> pool{nullptr};
std::once_flag fork_handler;

Pool& the_pool() {
  std::call_once(fork_handler,
                 [] { pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); }); });
  Pool* p = pool.load(std::memory_order_acquire);
  if (p == nullptr) {
    auto fresh = std::make_unique<Pool>();
    if (pool.compare_exchange_strong(p, fresh.get())) p = fresh.release();
  }
  return *p;
}

}  // namespace

void Barrier::wait() {
  if (members_ == 1) return;
  const int generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    generation_.notify_all();
    return;
  }
  for (int i = 0; i < kSpins; ++i) {
    if (generation_.load(std::memory_order_acquire) != generation) return;
    pause_cpu();
  }
  while (generation_.load(std::memory_order_acquire) == generation) generation_.wait(generation);
}

void run_team(int wanted, const std::function<void(int, Team&)>& body) {
  FlushDenormals flush;
  if (wanted > 1) {
    Pool& p = the_pool();
    std::unique_lock<std::mutex> owner(p.owner, std::try_to_lock);
    if (owner.owns_lock()) return p.run(wanted, body);
  }
  Team alone(1);
  body(0, alone);
}

#if defined(__x86_64__) || defined(_M_X64)
FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) {
  _mm_setcsr(static_cast<unsigned>(saved_) | 0x8040u);
}
FlushDenormals::~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(saved_)); }
#elif defined(__aarch64__)
FlushDenormals::FlushDenormals() {
  unsigned long long fpcr;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  saved_ = fpcr;
  asm volatile("msr fpcr, %0" : : "r"(fpcr | (1ull << 24)));
}
FlushDenormals::~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
FlushDenormals::FlushDenormals() : saved_(0) {}
FlushDenormals::~FlushDenormals() = default;
#endif

}  // namespace lamina
