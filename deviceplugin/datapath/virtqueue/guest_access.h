// The only ways in which this library touches memory that a driver shares. The driver may write to
// it at any moment, whatever the specification says, so:
//
// - A field is loaded once, by one atomic load, into a local variable; what is checked is what is
//   used. An atomic load is also what keeps the compiler from loading it again.
// - Bytes that a decision depends on are copied first, by snapshot(); the decision uses the copy,
//   and the copy is what is forwarded.
// - Payload, which no decision depends on, is copied by copyBytes(). If the driver changes it
//   meanwhile, only the content of its own frame is undefined.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>

#if defined(__SANITIZE_THREAD__)
#define VDPA_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define VDPA_THREAD_SANITIZER 1
#endif
#endif

namespace vdpa::virtqueue {

template <typename T>
T load(const std::byte* at) {
  return __atomic_load_n(reinterpret_cast<const T*>(at), __ATOMIC_RELAXED);
}

// Loads of what was written before it come after it.
template <typename T>
T loadAcquire(const std::byte* at) {
  return __atomic_load_n(reinterpret_cast<const T*>(at), __ATOMIC_ACQUIRE);
}

template <typename T>
void store(std::byte* at, T value) {
  __atomic_store_n(reinterpret_cast<T*>(at), value, __ATOMIC_RELAXED);
}

// A thread that sees the value also sees all that was stored before it.
template <typename T>
void storeRelease(std::byte* at, T value) {
  __atomic_store_n(reinterpret_cast<T*>(at), value, __ATOMIC_RELEASE);
}

// Between a store and a load of another field: the suitable barrier before a look at the other
// side's notification settings (2.7.13.4.1, 2.8.21.3.1). Only a full one keeps a load from being
// done before the store.
inline void fullFence() {
#ifdef VDPA_THREAD_SANITIZER  // which knows no fences, but read-modify-writes
  static std::atomic<int> order{0};
  order.fetch_add(1, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// Copies bytes of which at least one side is shared.
inline void copyBytes(std::byte* to, const std::byte* from, size_t count) {
#ifdef VDPA_THREAD_SANITIZER  // to which memcpy() from a driver's memory is a race, as it is
  for (size_t i = 0; i < count; ++i) store(to + i, load<unsigned char>(from + i));
#else
  std::memcpy(to, from, count);
#endif
}

// Copies shared bytes into memory of ours, of which decisions are made: from here on, `to` is what
// was read. The compiler, which may assume that nobody writes to `from`, must not read that again.
inline void snapshot(std::byte* to, const std::byte* from, size_t count) {
  copyBytes(to, from, count);
  asm volatile("" : : "r"(to) : "memory");
}

}  // namespace vdpa::virtqueue
