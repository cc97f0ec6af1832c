// Several networks at once. A network that is small spends much of a step waiting at two barriers;
// one thread that has a network to itself never waits.
#include <condition_variable>
#include <mutex>

#include "layout.h"
#include "threads.h"

namespace lamina {
namespace {

// Members under way, and the threads that work on them.
template <class T>
class Group {
 public:
  Group(std::vector<Member<T>>& members, const Poll& poll)
      : members_(members), watch_(poll), calls_(members.size()), left_(members.size()) {}

  void work(int thread) {
    for (size_t i; (i = next_.fetch_add(1)) < members_.size();) {
      try {
        if (!watch_.stopped()) train(thread, i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
      std::lock_guard<std::mutex> lock(mutex_);
      --left_;
      changed_.notify_all();
    }
    while (help(thread)) continue;
  }
  void finish() {
    if (error_) std::rethrow_exception(error_);
    if (watch_.stopped()) throw Interrupted();
  }

 private:
  using Call = typename Run<T>::Call;
  struct Open {
    Call* call = nullptr;
    int n_free = 0;  // parts that no thread stands by yet
    int helpers = 0;
  };

  void train(int thread, size_t i) {
    Member<T>& member = members_[i];
    if (member.plan.rows.n == 0 || member.plan.n_epochs == 0) return;
    Call call(*member.run, member.plan, watch_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      calls_[i] = {&call, member.run->n_parts() - 1, 0};
      if (calls_[i].n_free > 0) changed_.notify_all();
    }
    call.work(thread);
    {
      std::unique_lock<std::mutex> lock(mutex_);
      calls_[i].call = nullptr;
      changed_.wait(lock, [&] { return calls_[i].helpers == 0; });
    }
    member.done = call.end();
    if (member.held && member.done == member.plan.n_epochs && !watch_.stopped()) {
      const Poll none;
      member.held_loss =
          member.model->evaluate(*member.held, *member.loss, nullptr, nullptr, 1, none);
      member.model->forward(member.held->x, member.held->n, member.y_pred, 1, none);
    }
  }

  // Stands by for a member that still works; returns whether there may be another to help.
  bool help(int thread) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (left_ == 0) return false;
    for (Open& open : calls_) {
      if (!open.call || open.n_free == 0) continue;
      --open.n_free;
      ++open.helpers;
      Call* call = open.call;
      lock.unlock();
      call->work(thread);
      lock.lock();
      --open.helpers;
      changed_.notify_all();
      return true;
    }
    // Only the calling thread may ask for a stop, and it must go on asking.
    if (thread != 0) {
      changed_.wait(lock);
    } else {
      changed_.wait_for(lock, std::chrono::milliseconds(50));
      lock.unlock();
      watch_.check();
    }
    return true;
  }

  std::vector<Member<T>>& members_;
  Watch watch_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<Open> calls_;
  size_t left_;
  std::exception_ptr error_;
};

}  // namespace

template <class T>
void train_together(std::vector<Member<T>>& members, int n_threads, const Poll& poll) {
  int threads = 0;  // that can find work
  for (const Member<T>& m : members) threads = std::min(n_threads, threads + m.run->n_parts());
  Group<T> group(members, poll);
  run_team(threads, [&](int thread) { group.work(thread); });
  group.finish();
}

template void train_together<float>(std::vector<Member<float>>&, int, const Poll&);
template void train_together<double>(std::vector<Member<double>>&, int, const Poll&);

}  // namespace lamina
