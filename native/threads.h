// The engine's own thread pool: one a process.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <shared_mutex>

namespace lamina {

// Runs body(thread) on the calling thread (thread 0) and on up to `wanted` - 1 workers, as many as
// wake up in time, and returns when all that joined are done. Bodies share their work by claiming
// pieces of it, so that a worker that is late, or that another caller holds, delays nobody; results
// must not depend on which thread took what. body must not throw. Survives fork: the child builds a
// new pool.
void run_team(int wanted, const std::function<void(int thread)>& body);

// The threads of a host's OpenMP runtime (PyTorch's), by its GOMP_parallel. They spin for
// milliseconds after each of the host's own products: workers of ours would have to wake up and
// share the processors with them (measured: a layer of one token takes twice as long).
using HostParallel = void (*)(void (*body)(void*), void* data, unsigned n_threads, unsigned flags);
void set_host(HostParallel parallel);  // null: there is none
HostParallel host();

// While it lives, run_team of this thread takes the host's threads, where there is a host; not in a
// forked child, where libgomp's pool does not work any more.
class HostTeams {
 public:
  explicit HostTeams(bool wanted);
  ~HostTeams();
  HostTeams(const HostTeams&) = delete;
  HostTeams& operator=(const HostTeams&) = delete;

 private:
  bool before_;
};

// Work in phases of n_parts parts each. Every part of a phase is done once, by its own thread (part
// = thread) or, when that thread is late, by whoever is free; then `after` runs once, and everyone
// goes on. On a busy machine a thread can be off its processor for milliseconds: a fixed assignment
// would make all others wait for it at every barrier.
class Phases {
 public:
  explicit Phases(int n_parts);
  // body(phase, part); after(phase) returns whether there is another phase. Returns when there is
  // none.
  void work(int thread, const std::function<void(int64_t, int)>& body,
            const std::function<bool(int64_t)>& after);

 private:
  struct alignas(64) Claim {
    std::atomic<int64_t> next{0};  // the first phase in which this part is not taken yet
  };
  const int n_parts_;
  std::unique_ptr<Claim[]> claims_;
  alignas(64) std::atomic<int> left_;
  alignas(64) std::atomic<int64_t> phase_{0};
};

// How many forks lie between this process and the first that loaded the engine.
uint64_t fork_generation();

// A mutex for readers and writers that a forked child finds free: a thread that held it when the
// process forked is not there any more to give it back.
class ForkSafeMutex {
 public:
  ForkSafeMutex() : held_(new Held{fork_generation(), {}}) {}
  ~ForkSafeMutex() { delete held_.load(); }
  ForkSafeMutex(const ForkSafeMutex&) = delete;
  ForkSafeMutex& operator=(const ForkSafeMutex&) = delete;
  void lock() { mutex().lock(); }
  bool try_lock() { return mutex().try_lock(); }
  void unlock() { mutex().unlock(); }
  void lock_shared() { mutex().lock_shared(); }
  bool try_lock_shared() { return mutex().try_lock_shared(); }
  void unlock_shared() { mutex().unlock_shared(); }

 private:
  struct Held {
    uint64_t generation;
    std::shared_mutex mutex;
  };
  std::shared_mutex& mutex();
  std::atomic<Held*> held_;
};

// Flush-to-zero and denormals-are-zero while in scope (subnormals cost 60 times a normal
// operation).
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned long long saved_;
};

}  // namespace lamina
