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

// Waits for ready() in three stages: pause (40 us or so: a small step's imbalance), yield (300 us:
// the processor goes to whoever wants it), and false: the caller then sleeps. Waking a sleeper
// takes 50 us on a virtual machine; had we slept sooner, two threads that meet every 10 us would
// keep finding each other asleep (measured: 83 us a step, not 27).
template <class Ready>
bool spin(Ready ready) {
  constexpr int kPauses = 1000, kYields = 300;
  for (int i = 0; i < kPauses; ++i) {
    if (ready()) return true;
    pause_cpu();
  }
  for (int i = 0; i < kYields; ++i) {
    if (ready()) return true;
    std::this_thread::yield();
  }
  return false;
}

struct Pool {
  std::mutex owner;  // held by the caller whose job is running
  std::mutex mutex;  // guards body, wanted and joining
  std::condition_variable wake;
  int workers = 0;
  const std::function<void(int)>* body = nullptr;
  int wanted = 0;
  std::atomic<uint64_t> job{0};
  std::atomic<int> active{0};  // workers inside body

  // As many workers as the system grants; they live as long as the process.
  void grow(int count) {
    try {
      for (; workers < count; ++workers)
        std::thread([this, index = workers + 1, seen = job.load()] { work(index, seen); }).detach();
    } catch (const std::system_error&) {  // the job runs on fewer threads
    }
  }

  void work(int index, uint64_t seen) {
    FlushDenormals flush;
    for (;;) {
      if (!spin([&] { return job.load(std::memory_order_acquire) != seen; })) {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return job.load(std::memory_order_acquire) != seen; });
      }
      const std::function<void(int)>* task;
      {
        std::lock_guard<std::mutex> lock(mutex);
        seen = job.load(std::memory_order_relaxed);
        task = index < wanted ? body : nullptr;  // null too when the job ended before we came
        if (task) active.fetch_add(1, std::memory_order_relaxed);
      }
      if (!task) continue;
      (*task)(index);
      active.fetch_sub(1, std::memory_order_acq_rel);
      active.notify_one();
    }
  }

  void run(int threads, const std::function<void(int)>& task) {
    grow(threads - 1);
    {
      std::lock_guard<std::mutex> lock(mutex);
      body = &task;
      wanted = threads;
      job.fetch_add(1, std::memory_order_release);
    }
    wake.notify_all();
    task(0);
    {
      std::lock_guard<std::mutex> lock(mutex);
      body = nullptr;
    }
    spin([&] { return active.load(std::memory_order_acquire) == 0; });
    for (int left; (left = active.load(std::memory_order_acquire)) != 0;) active.wait(left);
  }
};

// Never destroyed: detached workers may outlive static destruction. Replaced, not repaired, in a
// forked child.
std::atomic<Pool*> pool{nullptr};
std::atomic<uint64_t> generation{0};

void follow_forks() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, [] {
      pool.store(nullptr);
      generation.fetch_add(1);
    });
  });
}

Pool& the_pool() {
  follow_forks();
  Pool* p = pool.load(std::memory_order_acquire);
  if (p == nullptr) {
    auto fresh = std::make_unique<Pool>();
    if (pool.compare_exchange_strong(p, fresh.get())) p = fresh.release();
  }
  return *p;
}

}  // namespace

uint64_t fork_generation() {
  follow_forks();
  return generation.load(std::memory_order_acquire);
}

std::shared_mutex& ForkSafeMutex::mutex() {
  Held* held = held_.load(std::memory_order_acquire);
  const uint64_t now = generation.load(std::memory_order_acquire);
  if (held->generation == now) return held->mutex;
  // The parent's is left where it is: whoever held it may never unlock it, and destroying a locked
  // mutex is undefined.
  auto fresh = std::unique_ptr<Held>(new Held{now, {}});
  if (held_.compare_exchange_strong(held, fresh.get())) held = fresh.release();
  return held->mutex;
}

namespace {

std::atomic<HostParallel> host_parallel{nullptr};
std::atomic<uint64_t> host_generation{0};
thread_local bool takes_host = false;

struct HostJob {
  const std::function<void(int)>& body;
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> others{0};
};

void join_host(void* place) {
  HostJob& job = *static_cast<HostJob*>(place);
  FlushDenormals flush;
  job.body(std::this_thread::get_id() == job.caller ? 0 : 1 + job.others.fetch_add(1));
}

}  // namespace

void set_host(HostParallel parallel) {
  host_generation.store(fork_generation());
  host_parallel.store(parallel);
}

HostParallel host() {
  return host_generation.load() == fork_generation() ? host_parallel.load() : nullptr;
}

HostTeams::HostTeams(bool wanted) : before_(takes_host) { takes_host = wanted; }
HostTeams::~HostTeams() { takes_host = before_; }

void run_team(int wanted, const std::function<void(int)>& body) {
  FlushDenormals flush;
  if (wanted > 1) {
    if (const HostParallel parallel = takes_host ? host() : nullptr) {
      HostJob job{body};
      return parallel(&join_host, &job, static_cast<unsigned>(wanted), 0);
    }
    Pool& p = the_pool();
    std::unique_lock<std::mutex> owner(p.owner, std::try_to_lock);
    if (owner.owns_lock()) return p.run(wanted, body);
  }
  body(0);
}

Phases::Phases(int n_parts) : n_parts_(n_parts), claims_(new Claim[n_parts]), left_(n_parts) {}

void Phases::work(int thread, const std::function<void(int64_t, int)>& body,
                  const std::function<bool(int64_t)>& after) {
  constexpr int64_t kEnd = -1;
  for (int64_t phase; (phase = phase_.load(std::memory_order_acquire)) != kEnd;) {
    for (int i = 0; i < n_parts_; ++i) {
      const int part = (thread + i) % n_parts_;
      int64_t expected = phase;
      std::atomic<int64_t>& next = claims_[part].next;
      if (next.load(std::memory_order_relaxed) != phase ||
          !next.compare_exchange_strong(expected, phase + 1))
        continue;
      body(phase, part);
      if (left_.fetch_sub(1, std::memory_order_acq_rel) != 1) continue;
      const bool more = after(phase);
      left_.store(n_parts_, std::memory_order_relaxed);
      phase_.store(more ? phase + 1 : kEnd, std::memory_order_release);
      phase_.notify_all();
    }
    if (spin([&] { return phase_.load(std::memory_order_acquire) != phase; })) continue;
    phase_.wait(phase);
  }
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
