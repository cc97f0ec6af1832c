// Where the engine's memory comes from: aligned, zeroed, in huge pages when large; and refused in a
// sentence, rather than promised by a system that would kill the process once it is touched.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "layout.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lamina {
namespace {

// Below this it is not worth 20 us to ask the system how much there is.
constexpr size_t kWorthAsking = size_t{64} << 20;

std::string with_commas(size_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

#if defined(__linux__)
// The first number in a file, after `label` where that is not null; SIZE_MAX where there is none.
size_t number_in(const char* path, const char* label) {
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) return SIZE_MAX;
  char line[256];
  size_t found = SIZE_MAX;
  while (found == SIZE_MAX && std::fgets(line, sizeof(line), file)) {
    unsigned long long value;
    const size_t skip = label ? std::strlen(label) : 0;
    if (label && std::strncmp(line, label, skip) != 0) continue;
    if (std::sscanf(line + skip, "%llu", &value) == 1) found = static_cast<size_t>(value);
    if (!label) break;
  }
  std::fclose(file);
  return found;
}
// What can be had without killing anybody: the system's estimate, and the container's limit.
size_t available() {
  constexpr const char* kGroup = "/sys/fs/cgroup/memory.";
  const size_t free = number_in("/proc/meminfo", "MemAvailable:");
  const size_t swap = number_in("/proc/meminfo", "SwapFree:");
  const size_t limit = number_in((std::string(kGroup) + "max").c_str(), nullptr);
  const size_t used = number_in((std::string(kGroup) + "current").c_str(), nullptr);
  // The group's cached files (inactive_file) give way, so they do not count as used.
  const size_t cached = number_in((std::string(kGroup) + "stat").c_str(), "inactive_file ");
  size_t bytes = SIZE_MAX;
  if (free != SIZE_MAX) bytes = (free + (swap == SIZE_MAX ? 0 : swap)) * 1024;
  if (limit != SIZE_MAX && used != SIZE_MAX) {
    const size_t held = cached != SIZE_MAX && cached < used ? used - cached : used;
    bytes = std::min(bytes, limit > held ? limit - held : 0);
  }
  return bytes;
}
#else
size_t available() { return SIZE_MAX; }
#endif

}  // namespace

OutOfMemory::OutOfMemory(size_t bytes, size_t available) {
  const std::string got =
      available == SIZE_MAX ? "less" : "only " + with_commas(available) + " that are free";
  std::snprintf(text_, sizeof(text_),
                "lamina: expected %s bytes of memory, got %s. Use a smaller network or batch, or "
                "fewer rows at once.",
                with_commas(bytes).c_str(), got.c_str());
}

void require_memory(size_t bytes) {
  if (bytes < kWorthAsking) return;
  const size_t free = available();
  if (bytes > free) throw OutOfMemory(bytes, free);
}

void* allocate(size_t bytes) {
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t align = bytes >= kHuge ? kHuge : 64;
  const size_t size = (bytes + align - 1) / align * align;
  require_memory(size);
  void* p = std::aligned_alloc(align, size);
  if (p == nullptr) throw OutOfMemory(size, SIZE_MAX);
#if defined(__linux__)
  if (align == kHuge)
    madvise(p, size, MADV_HUGEPAGE);  // 3-8 % on large networks; a refusal is harmless
#endif
  std::memset(p, 0, size);
  return p;
}
void release(void* p) noexcept { std::free(p); }

}  // namespace lamina
