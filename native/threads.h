// The engine's own thread pool. One pool a process; the caller is always thread 0 of its own job.
#pragma once
#include <atomic>
#include <functional>

namespace lamina {

// All threads of a team meet here. Spins briefly (a step is microseconds), then sleeps, because
// spinning on a stolen vCPU would stall the thread that everyone waits for.
class Barrier {
 public:
  explicit Barrier(int members) : members_(members) {}
  void wait();

 private:
  const int members_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> generation_{0};
};

struct Team {
  int members;
  Barrier barrier;
  explicit Team(int m) : members(m), barrier(m) {}
};

// Runs body(thread, team) on up to `wanted` threads and returns when all are done. When another
// caller holds the pool, the team is the caller alone: callers must divide work by a logical count
// of their own, never by team size, so that results do not depend on who else is running. body must
// not throw. Survives fork: the child builds a new pool.
void run_team(int wanted, const std::function<void(int thread, Team& team)>& body);

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
