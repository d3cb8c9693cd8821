#include "deviceplugin/datapath/switch/ports/closer.h"

#include <pthread.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "common/mutex.h"

namespace vdpa::vswitch {
namespace {

constexpr std::chrono::seconds kPatience{1};

}  // namespace

Closer::Closer(std::shared_ptr<const void> used) {
  state_->used = std::move(used);
}

Closer::~Closer() {
  const auto deadline = Condition::Clock::now() + kPatience;
  Lock lock(state_->mutex);
  while (!state_->ports.empty())
    if (!state_->ended.waitUntil(state_->mutex, deadline)) return;
}

size_t Closer::waiting(uint16_t port) const {
  Lock lock(state_->mutex);
  const auto found = state_->ports.find(port);
  return found == state_->ports.end() ? 0 : found->second.size();
}

void Closer::takeShared(uint16_t port, std::shared_ptr<void> object) {
  {
    Lock lock(state_->mutex);
    auto& objects = state_->ports[port];
    objects.push_back(std::move(object));
    if (objects.size() > 1) return;  // its thread runs
  }
  try {
    std::thread([state = state_, port] {
      ::pthread_setname_np(::pthread_self(), "closer");
      serve(state, port);
    }).detach();
  } catch (const std::system_error&) {
    serve(state_, port);
  }
}

// An object counts until it has ended.
void Closer::serve(const std::shared_ptr<State>& state, uint16_t port) {
  for (;;) {
    std::shared_ptr<void> object;
    {
      Lock lock(state->mutex);
      object = std::move(state->ports[port].front());
    }
    object.reset();
    Lock lock(state->mutex);
    auto& objects = state->ports[port];
    objects.pop_front();
    if (!objects.empty()) continue;
    state->ports.erase(port);
    state->ended.notifyAll();
    return;
  }
}

}  // namespace vdpa::vswitch
