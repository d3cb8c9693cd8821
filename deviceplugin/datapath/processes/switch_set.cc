#include "deviceplugin/datapath/processes/switch_set.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/event_thread.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/naming.h"
#include "common/paths.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "deviceplugin/datapath/processes/switch_handle.h"

namespace vdpa::datapath {

SwitchSet::SwitchSet(EventThread& thread, const Programs& programs, const Paths& paths,
                     Holders holders, std::function<void()> onChange)
    : thread_(thread),
      programs_(programs),
      paths_(paths),
      holders_(std::move(holders)),
      onChange_(std::move(onChange)) {
  makeDirectory(paths_.switches(), 0700);
}

void SwitchSet::start(const std::string& resource, const SwitchConfig& config,
                      SwitchHandle::Ports ports) {
  auto handle = std::make_shared<SwitchHandle>(thread_, programs_, paths_, resource, config,
                                               std::move(ports), holders_, onChange_);
  Lock lock(mutex_);
  switches_[resource] = std::move(handle);
}

void SwitchSet::offer(const std::vector<Resource>& resources) {
  std::map<std::string, Offered> offered;
  for (const auto& resource : resources)
    if (resource.hasPorts())
      offered[resource.name] = {resource.software, resource.policy.stormLimit};
  {
    Lock lock(mutex_);
    offered_ = offered;  // from now on collect() keeps what runs for these
  }
  for (const auto& [resource, wanted] : offered) {
    if (find(resource)) continue;
    Lock starting(starting_);
    start(resource, wanted.config, {});
  }
}

void SwitchSet::settle() {
  std::map<std::string, Offered> offered;
  {
    Lock lock(mutex_);
    if (!offered_) return;
    offered = *offered_;
  }
  for (const auto& [resource, wanted] : offered) configure(resource);
  for (const auto& [resource, handle] : all()) collect(resource);
  stopStrays();
}

// Another thread may do the same with a newer configuration: the last one to finish sees that.
void SwitchSet::configure(const std::string& resource) {
  const auto handle = find(resource);
  if (!handle) return;
  const auto offer = [&]() -> std::optional<Offered> {
    Lock lock(mutex_);
    const auto found = offered_->find(resource);
    return found == offered_->end() ? std::nullopt : std::optional(found->second);
  };
  std::optional<Offered> wanted;
  do {
    wanted = offer();
    handle->configure(wanted ? wanted->config : handle->config());
    if (wanted) handle->limitStorms(wanted->stormLimit);
  } while (wanted != offer());
}

void SwitchSet::upgrade(const std::string& resource) {
  if (const auto handle = find(resource)) handle->upgrade();
}

void SwitchSet::collect(const std::string& resource) {
  const auto handle = find(resource);
  const auto needed = [&] { return handle->hasPorts() || servesWithheld(fileName(resource)); };
  {
    Lock lock(mutex_);
    if (!handle || offered(resource) || needed()) return;
  }
  log::info("{} is no longer offered: stopping its switch", resource);
  bool ended = true;
  try {
    handle->stop();
  } catch (const std::exception& error) {
    log::error("{}", error.what());
    ended = false;  // the next call tries again
  }
  {
    Lock lock(mutex_);
    if (!offered(resource) && !needed()) {
      if (!ended) return;
      std::filesystem::remove_all(paths_.switchDir(fileName(resource)));
      switches_.erase(resource);
      return;
    }
  }
  configure(resource);  // needed again meanwhile: this starts it
}

bool SwitchSet::offered(const std::string& resource) const {
  return !offered_ || offered_->contains(resource);
}

void SwitchSet::stopStrays() {
  std::error_code drained;  // then there is no such directory
  for (const auto& entry : std::filesystem::directory_iterator(paths_.switches(), drained)) {
    Lock starting(starting_);
    const auto known = all();
    const std::string name = entry.path().filename();
    if (std::any_of(known.begin(), known.end(),
                    [&](const auto& one) { return fileName(one.first) == name; }))
      continue;
    if (servesWithheld(name)) {
      log::warn("vdpa-switch {} is no longer offered, but keeps running for a withheld device",
                name);
      continue;
    }
    try {
      stopStray(paths_.switchControl(name));
      std::filesystem::remove_all(entry.path());
    } catch (const std::exception& error) {
      log::error("{}", error.what());
    }
  }
}

// By its ports' sockets, DEVICE.sock, so that it works for switches that are not adopted yet.
bool SwitchSet::servesWithheld(const std::string& name) const {
  std::error_code ignored;
  const std::filesystem::directory_iterator ports(paths_.switchPorts(name), ignored);
  return std::any_of(begin(ports), end(ports),
                     [&](const auto& entry) { return holders_.unknown(entry.path().stem()); });
}

std::shared_ptr<SwitchHandle> SwitchSet::find(const std::string& resource) const {
  Lock lock(mutex_);
  const auto found = switches_.find(resource);
  return found == switches_.end() ? nullptr : found->second;
}

SwitchSet::Switches SwitchSet::all() const {
  Lock lock(mutex_);
  return switches_;
}

}  // namespace vdpa::datapath
